"""The choices for a dataset, a machine and the time allowed: pure functions, each value with its reason.

Each rule's constants stand above it with where they come from. Accuracies in these comments are of the default data
(500 labeled and 9,000 unlabeled images of Fashion-MNIST), of a fully labeled set of 3,000 color pictures, or of the set
of ``benchmarks.datasets`` that they name. *Chosen on* says of which split, as far as it was recorded, and *tried on*
what had no part in the choice; the page of the results has a table of these lines. *For the default recipe* stands for
what ``params.yaml`` had before any rule.
"""

import math
from collections.abc import Iterator

from reflux.components.advice.plan.choice import SLACK, Answers, Choice, Wishes
from reflux.components.advice.plan.gates import gates
from reflux.components.advice.plan.lesson import (
    FEW_VIEWS,
    STUDENT_BATCH,
    learned_from,
    method,
    scarce,
    student_batch,
    wanted_steps,
)
from reflux.components.advice.plan.networks import DEFAULT_NETWORK, PRETRAINED, Setup, networks, size_limit
from reflux.components.advice.plan.pace import VALIDATIONS, Pace
from reflux.components.advice.plan.profile import Profile
from reflux.components.advice.plan.teacher import (
    EPOCHS,
    TEACHER_SHARE,
    epochs_in,
    least_teacher_seconds,
    may_start_from_scratch,
    start,
    teacher,
    teacher_batch,
    teacher_seconds,
    usual_batch,
)
from reflux.components.core.errors import UserError

# --- what was asked for ---------------------------------------------------------------------------------------------

# Chosen on: no images
LEAST_MINUTES = 1.0  # a run of a hundred tiny images: starting the stages' processes, export and evaluation


def refuse_wishes(wishes: Wishes) -> None:
    """Refuse what no dataset could fulfill.

    Raises:
        UserError: it says what is possible instead.
    """
    accuracy = wishes.min_accuracy
    if accuracy is not None and not 0 < accuracy < 1:
        percent = f" for {accuracy:g} %" if 1 < accuracy <= 100 else ""
        example = accuracy / 100 if 1 < accuracy < 100 else 0.85
        raise UserError(f"--min-accuracy {accuracy:g} is no share between 0 and 1: write {example:g}{percent}.")
    if not wishes.minutes >= LEAST_MINUTES:
        raise UserError(
            f"--minutes {wishes.minutes:g} is too short for any run: its stages alone take about a minute, so give "
            f"{LEAST_MINUTES:g} or more (10 if you leave it out)."
        )


# --- sizes ----------------------------------------------------------------------------------------------------------

# At 64 instead of 28 pixels the student of the color pictures lost 2.5 points and took six times as long; whether more
# pixels help depends on the set, so that the native size decides, as far as the time allows.
# Chosen on: not recorded
STUDENT_SIZES = (28, 32, 48, 64)

# A linear probe on 500 images of 28 pixels: 81.0 at 80 pixels, 81.2 at 224. Below 64 the pretrained network's last maps
# have less than 2 x 2 pixels. 64 is for when the time is short.
# Chosen on: not recorded
TEACHER_SIZES = (64, 80, 112, 144)
# Chosen on: validation images of fashion-500, for the default recipe
TEACHER_SIZE = 80

# From so many visits of each image, and steps, a smaller size or network is no better choice. In about the same time
# (student and control on 312 validation images of clip art): 1,064 steps at 64 pixels 54.2 and 51.6, 1,900 at 48 pixels
# 53.5 and 55.5, 4,000 at 32 pixels 57.1 and 57.4; but 1,500 at 32 pixels 52.2.
# Chosen on: validation images of clipart
GOOD_VISITS, GOOD_STEPS = 10, 1500

# On color pictures a few steps from ImageNet's weights bring more than many from random ones.
# Validation accuracy of a control, pretrained and not, in about the same time: clip art 61.5 (410 steps, 64 pixels) and
# 53.5 (1,199, 48); cards 80.9 (615, 64) and 77.9 (1,888, 64); emoji 78.6 (330, 48) and 69.6 (1,513, 32), but on test
# images, of another maker, 68.8 and 69.9. Then tried with 344 steps at 64 pixels, in less time than the other: 57 test
# images of stamps 75.4 and 63.2, 294 of mahjong, of other decks, 58.2 and 45.9. One seed each.
# Chosen on: validation images of clipart, cards, emoji; tried on: test images of stamps, mahjong
PRETRAINED_SIZES, GOOD_PRETRAINED_STEPS = (64, 48), 350

# From so many images seen in fine-tuning, a smaller size is no better choice for the teacher: of 2,979 emoji, one epoch
# at 144 pixels, which a probe preferred, made a teacher of 62.6 %, and four at 80 pixels, which took as long, 69.7 %.
# Chosen on: not recorded
GOOD_FINE_TUNING = 10_000


def teacher_candidates(profile: Profile) -> tuple[int, ...]:
    """The teacher's image sizes that are worth asking validation images about."""
    sizes = TEACHER_SIZES[TEACHER_SIZES.index(TEACHER_SIZE) :]
    return sizes[:2] if profile.native < 64 else sizes


def setups(profile: Profile, wishes: Wishes, answers: Answers) -> Iterator[Setup]:
    """The networks and sizes to try, the most capable first; the first that the time allows is taken.

    Raises:
        UserError: no network is small enough.
    """
    sizes = [size for size in STUDENT_SIZES if size <= max(profile.native, STUDENT_SIZES[0])][::-1]
    teachers = [size for size in TEACHER_SIZES if size <= (answers.teacher_size or TEACHER_SIZE)][::-1]
    classes = len(profile.classes)
    fitting = networks(wishes, classes)
    if profile.color and PRETRAINED.kb_of(classes, int8=True) <= size_limit(wishes, classes):
        for teacher_size in teachers:
            yield from (Setup(PRETRAINED, size, teacher_size) for size in PRETRAINED_SIZES)
    quick = [network for network in fitting if network.fp32_kb >= DEFAULT_NETWORK.fp32_kb] or fitting[:1]
    for teacher_size in teachers:
        yield from (Setup(network, size, teacher_size) for network in quick for size in sizes)
    if may_start_from_scratch(profile, wishes):
        yield from (Setup(network, size, size, scratch=True) for network in quick for size in sizes)


def affordable(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> bool:
    """Tell if the time allows a teacher that is taught enough, and a student that sees each image often enough."""
    train, images = max(1, profile.counts["train"]), learned_from(profile)
    epochs, from_scratch = epochs_in(profile, wishes, setup, pace), may_start_from_scratch(profile, wishes)
    if not setup.scratch:
        enough = EPOCHS if from_scratch else min(EPOCHS, math.ceil(GOOD_FINE_TUNING / train))
        if epochs < enough and (from_scratch or setup.teacher_size > TEACHER_SIZES[0]):
            return False
        epochs = max(1, min(enough, epochs))
    steps = GOOD_STEPS if setup.network.weights == "random" else GOOD_PRETRAINED_STEPS
    views = max(steps * student_batch(images), GOOD_VISITS * images)
    labels = images * _least_views(profile, setup, views / images)
    fine_tuning = epochs * train * pace.fine_tuning
    return wishes.seconds >= pace.fixed + fine_tuning + labels * pace.labeling + views * pace.learning


def image_sizes(profile: Profile, setup: Setup, answers: Answers) -> Iterator[Choice]:
    """Color, and the sizes of what is stored and of both networks' input."""
    color = "at least 1 % of the sampled images have color" if profile.color else "no sampled image has color"
    yield Choice("ingest.channels", 3 if profile.color else 1, color)
    largest = max(setup.student_size, setup.teacher_size)
    stored = max(1, min(profile.native, largest))
    why = "half of the images have no more" if stored < largest else "what teacher and student need"
    yield Choice("ingest.image_size", stored, f"pixels; {why}")
    low, middle, high = profile.sides
    native = f"{middle}" if low == high else f"{low} to {high}"
    yield Choice("student.image_size", setup.student_size, f"pixels; the images have {native}")
    if setup.scratch:
        why = "as the student's"
    elif setup.teacher_size != (answers.teacher_size or TEACHER_SIZE):
        why = "what the time allows"
    else:
        why = answers.teacher_reason or "the default recipe's, as validation images were not asked"
    yield Choice("finetune.image_size", setup.teacher_size, f"pixels; {why}")


def student_model(profile: Profile, wishes: Wishes, setup: Setup) -> Iterator[Choice]:
    """The network, which of its files ships, and the gate on that."""
    classes = len(profile.classes)
    limit, fp32, int8 = size_limit(wishes, classes), *(setup.network.kb_of(classes, each) for each in (False, True))
    largest = networks(wishes, classes)[0]
    allowed = "" if setup.network == largest else " and that the time is enough for"
    if setup.network.weights == "random":
        yield Choice("student.model", setup.network.name, f"the largest that fits {limit:,.0f} KB{allowed}")
        yield Choice("student.weights", "random", "small nets have no pretrained weights")
    else:
        yield Choice("student.model", setup.network.name, f"pretrained, and fits {limit:,.0f} KB")
        yield Choice("student.weights", setup.network.weights, "ImageNet's, a good start for color pictures")
    if fp32 <= limit:
        why = f"about {int8:,.0f} KB where validation images show that int8 is as good, else {fp32:,.0f}"
        yield Choice("compress.ships", "auto", why)
    else:
        why = f"about {int8:,.0f} KB; the fp32 file, {fp32:,.0f}, does not fit"
        yield Choice("compress.ships", "onnx-int8", why)
    fits = "either file fits" if fp32 <= limit else "the int8 file fits"
    asked = "--max-kb" if wishes.max_kb is not None else f"{fits}, as --max-kb was not given"
    yield Choice("registry.gates.size_kb", {"max": _plain(limit)}, asked)


# --- batches ---------------------------------------------------------------------------------------------------------


def batch_sizes(profile: Profile, setup: Setup) -> Iterator[Choice]:
    """The batch sizes that the learning rates were chosen with, or smaller ones for few images."""
    train, images = profile.counts["train"], learned_from(profile)
    sizes = {
        "finetune": (teacher_batch(train, setup), usual_batch(setup), train),
        "student": (student_batch(images), STUDENT_BATCH, images),
    }
    for section, (batch, usual, count) in sizes.items():
        why = "the one that the learning rate was chosen with" if batch == usual else f"there are only {count:,} images"
        yield Choice(f"{section}.batch_size", batch, why)


# --- the student ----------------------------------------------------------------------------------------------------

# Four fixed views of 3,000 labeled pictures, seen 16 times each, cost 3.0 points; 16, seen 4 times each, gained 0.9,
# and views that never repeat lost 0.4. On clip art 21 views, seen 16 times each, lost 0.3 on validation images. A
# teacher from random weights labels so fast that no view need repeat, as none does for the control.
# Chosen on: not recorded, validation images of clipart
FEW_REPEATS, ENOUGH_VIEWS, MOST_REPEATS = 4, 16, 16


def student_budget(profile: Profile, wishes: Wishes, setup: Setup, pace: Pace) -> Iterator[Choice]:
    """Views and steps: as many as are wanted, or the time allows.

    Raises:
        UserError: the time is too short for one visit of each image; it says what is enough.
    """
    images = learned_from(profile)
    batch, wanted = student_batch(images), wanted_steps(images)
    left = wishes.seconds - pace.fixed - teacher_seconds(profile, wishes, setup, pace)
    soft = scarce(profile)
    if setup.scratch:
        steps = int(left / (batch * (pace.learning + pace.labeling)))
    elif soft:
        views = FEW_VIEWS
        while views > 1 and views * images * pace.labeling > left / 2:
            views -= 1
        steps = int((left - views * images * pace.labeling) / (batch * pace.learning))
        if steps * batch > MOST_REPEATS * views * images:
            steps = int(left / (batch * (pace.learning + pace.labeling / FEW_REPEATS)))
    else:
        once = (left - images * pace.labeling) / (batch * pace.learning)
        few = min(once, left / (batch * (pace.learning + pace.labeling / FEW_REPEATS)))
        enough = (left - ENOUGH_VIEWS * images * pace.labeling) / (batch * pace.learning)
        many = left / (batch * (pace.learning + pace.labeling / MOST_REPEATS))
        steps = int(min(max(few, enough), many))
    least = math.ceil(images / batch)
    if steps < least:
        look = images * pace.labeling + least * batch * pace.learning
        seconds = pace.fixed + max(look / (1 - TEACHER_SHARE), look + least_teacher_seconds(profile, setup, pace))
        raise UserError(
            f"--minutes {wishes.minutes:g} is too short for {images:,} images on this machine: for one look at each "
            f"give {math.ceil(seconds / SLACK / 6) / 10:g} or more."
        )
    steps, why = (wanted, "as many as help") if steps >= wanted else (steps, "what the time allows")
    visits = steps * batch / images
    affords = int((left - steps * batch * pace.learning) / (images * pace.labeling))
    if setup.scratch:
        views = _least_views(profile, setup, visits)
    elif soft:
        views = max(views, min(affords, math.ceil(visits / FEW_REPEATS)))
    else:
        helps = max(min(ENOUGH_VIEWS, math.ceil(visits)), math.ceil(visits / FEW_REPEATS))
        views = max(_least_views(profile, setup, visits), min(affords, helps))
    yield Choice("student.steps", steps, f"{visits:,.0f} visits of each image, {why}")
    every = max(1, steps // VALIDATIONS)
    yield Choice("student.eval_every", every, f"steps; {VALIDATIONS} looks at the validation images")
    repeats = round(visits / views)
    why = f"each seen {repeats} times" if repeats > 1 else "a new one for each visit"
    why = f"{why}: with so many unlabeled images that is enough" if soft and repeats > FEW_REPEATS else why
    yield Choice("label.views", views, f"of each image, {why}")


# The ImageNet recipes' (torchvision's ColorJitter of fb.resnet.torch).
# Chosen on: no images
COLOR_JITTER = 0.4
# Chosen on: validation images of fashion-500, for the default recipe
SHIFT = 0.075  # two of 28 pixels, the default recipe's


def augment(profile: Profile, answers: Answers) -> Iterator[Choice]:
    """The draws of a view, the same for teacher and student."""
    if answers.flip is None:
        flip = profile.color
        why = "mirrored: usual for color pictures" if flip else "not mirrored: gray pictures may be characters"
        why += f" ({answers.flip_reason})" if answers.flip_reason else ""
    else:
        flip, why = answers.flip, answers.flip_reason
    yield Choice("finetune.round_augment.flip", flip, why)
    for section in ("finetune", "student"):
        yield Choice(f"{section}.augment.flip", flip, why)
        yield Choice(f"{section}.augment.shift", SHIFT, "")
        jitter = COLOR_JITTER if profile.color else 0.0
        yield Choice(f"{section}.augment.color", jitter, "color pictures: light and colors vary" if jitter else "")


# Logit adjustment (Menon et al. 2021) gives rare classes their share at some cost to the frequent ones; the
# literature's long tails begin at 1 : 10.
# Chosen on: no images
LONG_TAIL = 10.0


def balance(profile: Profile) -> Iterator[Choice]:
    """How much rare classes count, the same for teacher, student and control."""
    ratio = profile.imbalance
    if ratio >= LONG_TAIL:
        value, why = "logit-adjustment", f"the smallest class has 1 training image for {ratio:,.0f} of the largest"
    else:
        value, why = "none", "classes are about equal" if ratio < 2 else f"classes of 1 : {ratio:.1f} do without"
    for section in ("finetune", "student"):
        yield Choice(f"{section}.balance", value, why)


def structure(profile: Profile, wishes: Wishes, setup: Setup, answers: Answers) -> list[Choice]:
    """The choices that the speed of this machine follows from."""
    return [
        *image_sizes(profile, setup, answers),
        *start(setup, wishes),
        *batch_sizes(profile, setup),
        *student_model(profile, wishes, setup),
        *augment(profile, answers),
        *balance(profile),
        *method(profile),
    ]


def choices(profile: Profile, wishes: Wishes, setup: Setup, answers: Answers, pace: Pace) -> list[Choice]:
    """All choices.

    Raises:
        UserError: the time is too short.
    """
    return [
        *structure(profile, wishes, setup, answers),
        *teacher(profile, wishes, setup, pace),
        *student_budget(profile, wishes, setup, pace),
        *gates(profile, wishes),
    ]


def _least_views(profile: Profile, setup: Setup, visits: float) -> int:
    """The views of an image that are needed, lest they are memorized."""
    if setup.scratch:
        return math.ceil(visits)
    if scarce(profile):
        return min(FEW_VIEWS, math.ceil(visits))
    return max(min(ENOUGH_VIEWS, math.ceil(visits / FEW_REPEATS)), math.ceil(visits / MOST_REPEATS))


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number
