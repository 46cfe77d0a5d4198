"""The teacher: where it starts, in how many epochs it is trained, and whether it also learns from its own labels.

Each constant says on which images it was chosen, and on which it was tried then; see :mod:`rules`.
"""

import math
from collections.abc import Iterator

from reflux.components.advice.plan.choice import Choice, Wishes
from reflux.components.advice.plan.lesson import (
    HARD_TEACHER_WEIGHT,
    SOFT_TEACHER_WEIGHT,
    STUDENT_BATCH,
    VISITS,
    hard_teacher_weight,
    has_few_labels,
    learned_from,
    power_of_two,
    scarce,
    student_batch,
    wanted_seconds,
    wanted_steps,
)
from reflux.components.advice.plan.networks import LADDER, TEACHER, TEACHER_WEIGHTS, Network, Setup
from reflux.components.advice.plan.pace import Pace
from reflux.components.advice.plan.profile import Profile
from reflux.components.core.params.sections import Params

# 12 epochs are the default recipe's for 500 images. Fewer images need as many steps: test accuracy of teachers after 12
# epochs, about as many steps as of 500 images, and twice as many: 78 images of MNIST 73.7, 85.0, 85.7; 150 letters
# 67.4, 74.3, 74.8; 100 of Fashion-MNIST 72.0, 72.1, 74.0; then tried on 150 of clip art, 49.3, 53.0, and 100 digits,
# 89.9, 89.5 (286 test images). More than half of the time for the teacher leaves too little for views, which is what a
# student lives on.
# Chosen on: test images of mnist-100, letters-200, a hundred of Fashion-MNIST; tried on: test images of clipart, digits
FINE_TUNING_STEPS = 180
# Chosen on: validation images of fashion-500, for the default recipe
EPOCHS, TEACHER_BATCH = 12, 32
# Chosen on: no images
TEACHER_SHARE = 0.5
# Without time for an epoch, one view of each image is probed; learning from the features takes about as long again.
PROBE_VIEWS, PROBE_PASSES = 4, 2

# A teacher of few labels learns more from unlabeled images, as it labels those that it is sure of. Test accuracy after
# the labels alone and after a second round of 4 epochs: 158 letters, and 6,720 unlabeled ones, 75.2 and 79.1; 100 of
# Fashion-MNIST, and 9,000, 72.1 and 76.1; one seed. With 500, 50 of each class, validation accuracy was 86.2 and 84.0.
# A short round is worse than none, as it begins anew: after one epoch the teacher of 306 emoji, and 3,398, had 47.6
# instead of 55.2. So it has at least as many epochs, and visits of all images, as of the letters.
# Chosen on: test images of letters-200, a hundred of Fashion-MNIST, emoji-360, validation images of fashion-500
ROUND_EPOCHS, ROUND_VISITS = 4, 27_500

# Of so many gray images the time leaves a pretrained teacher an epoch or none, and it is no better than the student's
# control: 91.0 and 87.5 % where that has 91.5 and 93.1, with 17,000 and 50,500 labels of Fashion-MNIST (whole runs,
# means of two), and the student lost 0.1 and 0.3. A teacher of twice the student's width, from random weights, has 92.8
# with 40 epochs of the 17,000 in about as long, and labels a view in a fraction of the time; its students gained 0.2
# (three runs). Then tried on 17,000 labels of MNIST, in four minutes (one run each): a gain of 0.1, where the
# pretrained teacher had 93.8 % and its student lost 0.04.
# Chosen on: test images of fashion-20000, fashion-60000; tried on: test images of 17,000 labels of MNIST
MANY_LABELS = 10_000
# With 50,500 labels half of the time is for a third of its epochs, and what these teach may hurt or help: on views that
# never repeat one student lost 0.3 (14 visits, 92.4 %), and one, by hand, gained 0.5 (19 visits, 93.1 %). So it gets
# what a student of all its visits leaves, this share at least, and counts by how many of its epochs it has: 0.1 below
# the control then (28 visits, 93.2 %, three runs).
# Where most images have no label, the student can learn only what the teacher knows, so the teacher comes first. Test
# accuracy of teacher, student and control, with 16,679 labels of Fashion-MNIST among 56,679 images (one seed each): a
# pretrained teacher of 2 epochs 90.7, 90.9, 92.0; one from random weights, of 19 epochs (its share if the student came
# first) 92.2, 92.2, 92.7; of 40 epochs 92.7, 92.6, 92.0. The student of the 19 epochs learned with labels at full
# weight and T = 4; of the 40 epochs that made 92.4. Then tried on 16,636 of MNIST among 56,636: 99.6, 99.6, 99.5.
# Chosen on: test images of fashion-60000, fashion-mixed; tried on: test images of 16,636 labels of MNIST
LEAST_TEACHER_SHARE = 0.25

# The learning rates at the head, what is left of them a layer further down, and whether BatchNorm stays as it was: from
# random weights as for the student. Of 512 images at once such a teacher labels one in 0.034 ms, of 128 in 0.051.
_TRAINED_BY = ("finetune.lr", "finetune.layer_decay", "finetune.freeze_batch_norm", "label.batch_size")
# Chosen on: validation images of fashion-500, for the default recipe
PRETRAINED_RECIPE = dict(zip(_TRAINED_BY, (0.001, 0.8, True, 128), strict=True))
SCRATCH_RECIPE = dict(zip(_TRAINED_BY, (0.01, 1.0, False, 512), strict=True))


def may_start_from_scratch(profile: Profile, wishes: Wishes) -> bool:
    """True if there are so many labels that a teacher may do without pretraining."""
    many = profile.counts["train"] >= MANY_LABELS and not has_few_labels(profile)
    return many and not profile.color and not wishes.own_teacher


def is_own_teacher(params: Params) -> bool:
    """True if the params name a teacher that no plan chooses, or one that is pretrained on other images first."""
    planned = {(TEACHER, TEACHER_WEIGHTS), *((_twice(network), "random") for network in LADDER)}
    return params.pretrain.mode != "none" or (params.pretrain.model, params.pretrain.weights) not in planned


def _twice(network: Network) -> str:
    """The name of a network of twice the width."""
    return f"{network.name}_x2"


def start(setup: Setup, wishes: Wishes) -> Iterator[Choice]:
    """The teacher's network and weights, and how those are trained; nothing for a teacher that stays."""
    if setup.scratch:
        why = "twice as wide as the student; so many labels teach it more in the time than a pretrained one"
        yield Choice("pretrain.model", _twice(setup.network), why)
        yield Choice("pretrain.weights", "random", "small nets have no pretrained weights")
        yield from recipe(scratch=True)
    elif not wishes.own_teacher:
        yield Choice("pretrain.model", TEACHER, "pretrained on ImageNet, so that few labels are enough")
        yield Choice("pretrain.weights", TEACHER_WEIGHTS, "carried by an installed package")
        yield from recipe(scratch=False)


def recipe(scratch: bool) -> Iterator[Choice]:
    """How the weights of a teacher, pretrained ones or random ones, are trained and how it labels."""
    why = "a small network's, from random weights" if scratch else "a pretrained network's"
    for param, value in (SCRATCH_RECIPE if scratch else PRETRAINED_RECIPE).items():
        yield Choice(param, value, why)


def teacher(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> Iterator[Choice]:
    """How the teacher is fine-tuned: as many epochs as its share of the time allows, and in that a second round."""
    train = max(1, profile.counts["train"])
    affords, wanted = epochs_in(profile, wishes, setup, pace), _epochs_of(train, setup)
    if affords:
        better = "full fine-tuning is the better teacher, and there is time for it"
        why = "all of its weights are random" if setup.scratch else better
        yield Choice("finetune.strategy", "full", why)
    else:
        yield Choice("finetune.strategy", "feature-extraction", "there is no time for an epoch of full fine-tuning")
    epochs = max(1, affords)
    seconds = epochs * train * pace.fine_tuning
    why = f"about {seconds:,.0f} s of {60 * wishes.minutes:,.0f}" if affords else "not used"
    few = affords and wanted > EPOCHS and not setup.scratch
    yield Choice("finetune.epochs", epochs, f"{why}; few images need many epochs" if few else why)
    why = "not used" if affords else "the time is short"
    yield Choice("finetune.probe_views", PROBE_VIEWS if affords else 1, why)
    yield from _second_round(profile, wishes, setup, pace)
    yield _weight(profile, wishes, setup, pace)


def _weight(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> Choice:
    """How much the teacher's answers count, next to the labels."""
    if scarce(profile):
        return Choice("distill.teacher_weight", SOFT_TEACHER_WEIGHT, "its answers are what there is to learn from")
    why, trained = "the labels are more reliable than the teacher", epochs_in(profile, wishes, setup, pace) / VISITS
    weight = HARD_TEACHER_WEIGHT * trained if setup.scratch else hard_teacher_weight(profile.counts["train"])
    if weight < HARD_TEACHER_WEIGHT:
        why += f", which has {trained:.0%} of the epochs it needs" if setup.scratch else ", and they are many"
    return Choice("distill.teacher_weight", float(f"{weight:.2g}"), why)


def _second_round(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> Iterator[Choice]:
    epochs = _round_epochs_in(profile, wishes, setup, pace)
    if epochs:
        seconds = _round_seconds(profile, epochs, pace)
        why = f"few labels: a second teacher also learns from labels of the first; about {seconds:,.0f} s"
    else:
        why = "no time for a second one" if has_few_labels(profile) else "the labels are enough"
    yield Choice("finetune.rounds", 2 if epochs else 1, why)
    yield Choice("finetune.round_epochs", epochs or ROUND_EPOCHS, "of the second round" if epochs else "not used")


def teacher_seconds(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> float:
    """Seconds of the fine-tuning that :func:`teacher` chooses."""
    train, epochs = profile.counts["train"], epochs_in(profile, wishes, setup, pace)
    if not epochs:
        return least_teacher_seconds(profile, setup, pace)
    again = _round_epochs_in(profile, wishes, setup, pace)
    return epochs * train * pace.fine_tuning + (_round_seconds(profile, again, pace) if again else 0.0)


def least_teacher_seconds(profile: Profile, setup: Setup, pace: Pace) -> float:
    """Seconds of the least training that is planned: an epoch, or a probe of pretrained features."""
    return profile.counts["train"] * (pace.fine_tuning if setup.scratch else PROBE_PASSES * pace.labeling)


def epochs_in(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> int:
    """The epochs over the labels that the teacher's share of the time allows, or as many as it needs.

    Returns:
        0 where there is no time for one, and a probe of pretrained features has to do.
    """
    train = max(1, profile.counts["train"])
    affords = int(_share(profile, wishes, setup, pace) / (train * pace.fine_tuning))
    return max(1 if setup.scratch else 0, min(_epochs_of(train, setup), affords))


def _round_epochs_in(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> int:
    """The epochs that a second round needs, if the teacher's share or what the student can spare allows it; else 0."""
    train = max(1, profile.counts["train"])
    wanted = _epochs_of(train, setup)
    if not has_few_labels(profile) or epochs_in(profile, wishes, setup, pace) < wanted:
        return 0
    spare = wishes.seconds - pace.fixed - wanted_seconds(profile, pace)
    left = max(_share(profile, wishes, setup, pace), spare) - wanted * train * pace.fine_tuning
    epochs = max(ROUND_EPOCHS, math.ceil(ROUND_VISITS / learned_from(profile)))
    return epochs if _round_seconds(profile, epochs, pace) <= left else 0


def _round_seconds(profile: Profile, epochs: int, pace: Pace) -> float:
    return profile.unlabeled * pace.labeling + epochs * learned_from(profile) * pace.self_training


def _share(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> float:
    """Seconds for the teacher: half of all, unless one from random weights has to leave the student its time first."""
    seconds, images = wishes.seconds - pace.fixed, learned_from(profile)
    if not setup.scratch or scarce(profile):
        return TEACHER_SHARE * seconds
    spare = seconds - wanted_steps(images) * student_batch(images) * (pace.learning + pace.labeling)
    return min(TEACHER_SHARE * seconds, max(LEAST_TEACHER_SHARE * seconds, spare))


def _epochs_of(train: int, setup: Setup) -> int:
    """The epochs that a teacher of so many images needs; images that don't fill a batch wait for the next epoch."""
    if setup.scratch:
        return VISITS
    return max(EPOCHS, math.ceil(FINE_TUNING_STEPS / max(1, train // teacher_batch(train, setup))))


def teacher_batch(train: int, setup: Setup) -> int:
    """The teacher's batch size, smaller where images are few."""
    return power_of_two(train // 2, 8, usual_batch(setup))


def usual_batch(setup: Setup) -> int:
    """The batch size that the teacher's learning rate was chosen with."""
    return STUDENT_BATCH if setup.scratch else TEACHER_BATCH
