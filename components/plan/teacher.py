"""How the teacher is fine-tuned: in how many epochs, and whether it then learns from images that it labels itself."""

import math
from collections.abc import Iterator

from reflux.components.plan.choice import Choice, Wishes
from reflux.components.plan.lesson import has_few_labels, learned_from, power_of_two, wanted_seconds
from reflux.components.plan.pace import Pace
from reflux.components.plan.profile import Profile

# 12 epochs are the default recipe's for 500 images. Fewer images need as many steps: test accuracy of teachers after 12
# epochs, about as many steps as of 500 images, and twice as many: 78 images of MNIST 73.7, 85.0, 85.7; 150 letters
# 67.4, 74.3, 74.8; 100 of Fashion-MNIST 72.0, 72.1, 74.0; then tried on 150 of clip art, 49.3, 53.0, and 100 digits,
# 89.9, 89.5 (286 test images). More than half of the time for the teacher leaves too little for views, which is what a
# student lives on.
EPOCHS, FINE_TUNING_STEPS = 12, 180
TEACHER_SHARE = 0.5
TEACHER_BATCH = 32
# Without time for an epoch, one view of each image is probed; learning from the features takes about as long again.
PROBE_VIEWS, PROBE_PASSES = 4, 2

# A teacher of few labels learns more from unlabeled images, as it labels those that it is sure of. Test accuracy after
# the labels alone and after a second round of 4 epochs: 158 letters, and 6,720 unlabeled ones, 75.2 and 79.1; 100 of
# Fashion-MNIST, and 9,000, 72.1 and 76.1; one seed. With 500, 50 of each class, validation accuracy was 86.2 and 84.0.
# A short round is worse than none, as it begins anew: after one epoch the teacher of 306 emoji, and 3,398, had 47.6
# instead of 55.2. So it has at least as many epochs, and visits of all images, as of the letters.
ROUND_EPOCHS, ROUND_VISITS = 4, 27_500


def teacher(profile: Profile, wishes: Wishes, pace: Pace) -> Iterator[Choice]:
    """How the teacher is fine-tuned: as many epochs as its share of the time allows, and in that a second round."""
    train = max(1, profile.counts["train"])
    affords, wanted = epochs_in(profile, wishes, pace), _epochs_of(train)
    if affords:
        why = "full fine-tuning is the better teacher, and there is time for it"
        yield Choice("finetune.strategy", "full", why)
    else:
        yield Choice("finetune.strategy", "feature-extraction", "there is no time for an epoch of full fine-tuning")
    epochs = max(1, affords)
    seconds = epochs * train * pace.fine_tuning
    why = f"about {seconds:,.0f} s of {60 * wishes.minutes:,.0f}" if affords else "not used"
    few = affords and wanted > EPOCHS
    yield Choice("finetune.epochs", epochs, f"{why}; few images need many epochs" if few else why)
    why = "not used" if affords else "the time is short"
    yield Choice("finetune.probe_views", PROBE_VIEWS if affords else 1, why)
    yield from _second_round(profile, wishes, pace)


def _second_round(profile: Profile, wishes: Wishes, pace: Pace) -> Iterator[Choice]:
    epochs = _round_epochs_in(profile, wishes, pace)
    if epochs:
        seconds = _round_seconds(profile, epochs, pace)
        why = f"few labels: a second teacher also learns from labels of the first; about {seconds:,.0f} s"
    else:
        why = "no time for a second one" if has_few_labels(profile) else "the labels are enough"
    yield Choice("finetune.rounds", 2 if epochs else 1, why)
    yield Choice("finetune.round_epochs", epochs or ROUND_EPOCHS, "of the second round" if epochs else "not used")


def teacher_seconds(profile: Profile, wishes: Wishes, pace: Pace) -> float:
    """Seconds of the fine-tuning that :func:`teacher` chooses."""
    train, epochs = profile.counts["train"], epochs_in(profile, wishes, pace)
    if not epochs:
        return PROBE_PASSES * train * pace.labeling
    again = _round_epochs_in(profile, wishes, pace)
    return epochs * train * pace.fine_tuning + (_round_seconds(profile, again, pace) if again else 0.0)


def epochs_in(profile: Profile, wishes: Wishes, pace: Pace) -> int:
    """The epochs over the labels that the teacher's share of the time allows, or as many as it needs; 0 for none."""
    train = max(1, profile.counts["train"])
    return max(0, min(_epochs_of(train), int(_share(wishes, pace) / (train * pace.fine_tuning))))


def _round_epochs_in(profile: Profile, wishes: Wishes, pace: Pace) -> int:
    """The epochs that a second round needs, if the teacher's share or what the student can spare allows it; else 0."""
    train = max(1, profile.counts["train"])
    if not has_few_labels(profile) or epochs_in(profile, wishes, pace) < _epochs_of(train):
        return 0
    spare = wishes.seconds - pace.fixed - wanted_seconds(profile, pace)
    left = max(_share(wishes, pace), spare) - _epochs_of(train) * train * pace.fine_tuning
    epochs = max(ROUND_EPOCHS, math.ceil(ROUND_VISITS / learned_from(profile)))
    return epochs if _round_seconds(profile, epochs, pace) <= left else 0


def _round_seconds(profile: Profile, epochs: int, pace: Pace) -> float:
    return profile.unlabeled * pace.labeling + epochs * learned_from(profile) * pace.self_training


def _share(wishes: Wishes, pace: Pace) -> float:
    return TEACHER_SHARE * (wishes.seconds - pace.fixed)


def _epochs_of(train: int) -> int:
    """The epochs that a teacher of so many images needs; images that don't fill a batch wait for the next epoch."""
    return max(EPOCHS, math.ceil(FINE_TUNING_STEPS / max(1, train // teacher_batch(train))))


def teacher_batch(train: int) -> int:
    """The teacher's batch size, smaller where images are few."""
    return power_of_two(train // 2, 8, TEACHER_BATCH)
