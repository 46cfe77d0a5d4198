"""How often a promotion errs and how often it sees a gain: students whose true accuracy is known.

    .venv/bin/python -m benchmarks.promotion        # one minute on one core

A student and a champion classify n images. With probability (q + d) / 2 only the student gets an image right, with
probability (q - d) / 2 only the champion: d is the true difference in accuracy, q the share of images that just one of
them gets right. The pipeline's own comparison and decision are taken on 10,000 draws,
with the rule of ``params.yaml``, for a student of half the size (it must be no worse) and for one of the same size and
speed (it must be better). It prints a table and writes ``benchmarks/results/promotion.json``, where ``low`` and
``high`` are the exact binomial interval (95 %) of each rate.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from benchmarks.harness.results import ROOT, Figure, argument_parser, publish, read
from reflux.components.core.params.file import load_params
from reflux.components.core.significance import paired_bootstrap
from reflux.components.registry.policy.comparison import ChampionEvaluation, Measured, compare
from reflux.components.registry.policy.decision import Policy, decide

TRIALS = 10_000
RESAMPLES = 2000
SIZE = 100_000
ROUTES = ("smaller", "same size", "smaller, by the bootstrap alone")
DIFFERENCES = (-0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.02)
# Images, and the share of them that just one of the two gets right.
SETTINGS = ((200, 0.02), (1000, 0.1), (5000, 0.02), (5000, 0.1), (10_000, 0.1))

RULE = replace(Policy.of(load_params(ROOT / "params.yaml").registry), gates={"accuracy": {"min": 0.0}}, slices={})
PASSED = {"test": {"n": 1}, "shipped": {"onnx": {"accuracy": 1.0}}}


def rates(n: int, disagreement: float, difference: float, trials: int = TRIALS, seed: int = 0) -> dict[str, float]:
    """The share of draws that promote the student, by route.

    Args:
        n: test images.
        disagreement: the share of images that just one of the two gets right, q; at least ``abs(difference)``.
        difference: the student's true accuracy less the champion's, d.
        trials: draws.
        seed: of the draws.
    """
    shares = [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    draws = np.random.default_rng(seed).multinomial(n, shares, size=trials)
    outcomes, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    decisions = np.array([promotions(int(wins), int(losses), n) for wins, losses in outcomes])
    return dict(zip(ROUTES, (counts @ decisions / trials).tolist(), strict=True))


@cache
def promotions(wins: int, losses: int, n: int) -> tuple[bool, bool, bool]:
    """Each route's decision on a student that alone is right on ``wins`` images, and alone wrong on ``losses``."""
    labels, student, champion = np.zeros((3, n), np.int64)
    champion[:wins], student[wins : wins + losses] = 1, 1
    files = Measured("student", SIZE, student), Measured("champion", SIZE, champion)
    equal = replace(compare(labels, *files, None, 1, False, RESAMPLES, 0), faster=1.0)
    small = replace(equal, challenger_size_bytes=SIZE // 2)
    bootstrap = paired_bootstrap(student == labels, champion == labels, RESAMPLES, 0)
    return promoted(small), promoted(equal), promoted(replace(small, low=bootstrap.low))


def promoted(comparison: ChampionEvaluation) -> bool:
    """The decision on a student that passes every gate."""
    return decide(PASSED, RULE, comparison).promote


def measure() -> Iterator[Figure]:
    """Every rate in percent."""
    for n, disagreement in SETTINGS:
        for difference in DIFFERENCES:
            if abs(difference) <= disagreement:
                for route, rate in rates(n, disagreement, difference).items():
                    if route == ROUTES[-1] and difference != -RULE.margin:
                        continue
                    low, high = proportion_confint(round(rate * TRIALS), TRIALS, method="beta")
                    name = f"{route}: {n} images, {disagreement:.0%} differ, {100 * difference:+g} points"
                    value, least, most = (round(100 * float(share), 3) for share in (rate, low, high))
                    yield Figure(name, value, least, most, "%")


def section(folder: Path) -> str:
    """What is measured of the figures in the text above, as Markdown."""
    return str(read("promotion", folder))


def main() -> None:
    """Print the rates and write them down."""
    options = argument_parser(__doc__).parse_args()
    print(f"Promoted in {TRIALS:,} draws; margin {RULE.margin:.2%}, alpha {RULE.alpha:g}\n")
    publish("promotion", measure(), options.out)


if __name__ == "__main__":
    main()
