"""The gates that a plan starts with, from the data and what the user asks for."""

import math
from collections.abc import Iterator

from reflux.components.advice.plan.choice import Choice, Wishes
from reflux.components.advice.plan.profile import Profile

CLEARLY = 0.25  # of the way from always guessing the largest class to being always right
KNOWN = 100  # test images of a class, whose recall is then known to ±10 points


def gates(profile: Profile, wishes: Wishes) -> Iterator[Choice]:
    """Starting gates on accuracy and the worst class."""
    counts, n = profile.labeled["test"], max(1, profile.counts["test"])
    all_of_a_class = [sum(each) for each in zip(*profile.labeled.values(), strict=True)]
    known = counts if n >= KNOWN else all_of_a_class
    guess = max(known) / max(1, sum(known))
    if wishes.min_accuracy is not None:
        yield Choice("registry.gates.accuracy", {"min": wishes.min_accuracy}, "--min-accuracy")
    else:
        chance = 1.96 * math.sqrt(guess * (1 - guess) / n)  # 97.5 % of guessing models are below
        start = guess + min(max(CLEARLY * (1 - guess), chance), (1 - guess) / 2)
        why = f"a start, replace it by what you need: always guessing the largest class gets {guess:.2f}"
        yield Choice("registry.gates.accuracy", {"min": math.ceil(100 * start) / 100}, why)
    fewest = min(counts)
    if fewest >= KNOWN:
        chance = 1 / len(profile.classes)
        why = f"a start: more than by chance; the rarest class has {fewest:,} test images"
        yield Choice("registry.gates.worst_class_recall", {"min": math.floor(100 * chance + 1) / 100}, why)
    else:
        rarest = profile.classes[counts.index(fewest)]
        why = f"none: {fewest:,} test images of {rarest} say too little about its recall"
        yield Choice("registry.gates.worst_class_recall", None, why)
