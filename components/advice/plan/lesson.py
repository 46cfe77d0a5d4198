"""What the student learns, by how many images have labels: its losses and their weights, and how long it learns.

Each constant says on which images it was chosen, and on which it was tried then; see :mod:`rules`.
"""

import math
from collections.abc import Iterator

from reflux.components.advice.plan.choice import Choice
from reflux.components.advice.plan.pace import Pace
from reflux.components.advice.plan.profile import Profile

# Many unlabeled images: their soft labels at T = 1 (T = 2 was 84.1 instead of 84.7), while labels hardly count (0.1).
# Nearly all labeled: the teacher has memorized its training images, so that T = 4 and labels at full weight gained 0.9
# where T = 2 lost 4.3 and T = 1 lost 3.0. A teacher that had little time is no better than what it teaches, and does
# less harm at a weight of 0.3 than of 1 (control, at 1, at 0.3; one seed, test splits): emoji 62.6, 63.4, 64.9, with a
# better teacher 61.6, 62.0, 63.8; letters 91.3, 90.5, 91.6; 57 stamps 52.6, 64.9, 63.2; then tried on cards: 74.5,
# 74.5, 75.3, and clip art: 45.6, 49.3, 48.0. On validation images, of the makers of the training images, the student
# at 0.3 is 0.2 to 1.2 below the control on emoji, letters and cards, 1.5 above on 68 stamps: within their noise.
# Chosen on: test images of fashion-500
SOFT_TEMPERATURE = 1.0
# Chosen on: not recorded
SCARCE = 2.0  # unlabeled images for each labeled one
# Chosen on: validation images of fashion-500, for the default recipe
SOFT_LABEL_WEIGHT, SOFT_TEACHER_WEIGHT = 0.1, 1.0

# The fewer images have labels, the more each must count, for all to count as much as in the default recipe: 0.1 each of
# 500 among 9,500. Test accuracy of students at 0.1, at about the weight that this gives, and at ten times that: 78
# labels among 59,978 images of MNIST 89.8, 92.0 (at 5), 84.9; then tried on 100 among 9,100 of Fashion-MNIST: 75.4,
# 76.9 (at 0.5), 72.6; one seed each.
# Chosen on: test images of mnist-100; tried on: test images of a hundred of Fashion-MNIST
SOFT_LABEL_SHARE, MOST_LABEL_WEIGHT = 500 / 9500, 5.0

# With so few of each class a teacher is often wrong, and over all its visits the student finds out. Test accuracy of
# students with kd alone, and with temporal ensembling at a weight of 3 and of 9, of the same teachers: letters-200
# 78.5, 81.1, 82.1; a hundred labels of MNIST 91.8, 94.2, 94.3, of Fashion-MNIST 78.2, 79.4, 78.8; emoji-360 59.6,
# 63.6, 62.7; then tried, at 3, on 89 icons, which have 216 test images: 50.5, 48.6. With 50 of each class of
# Fashion-MNIST it was 85.8, 85.5, 82.3; one seed each.
# Chosen on: test images of letters-200, mnist-100, emoji-360, fashion-500 and 100 of it; tried on: test images of icons
FEW_LABELS = 40  # of each class

# Chosen on: not recorded
HARD_TEMPERATURE, HARD_LABEL_WEIGHT = 4.0, 1.0
# Chosen on: test images of emoji, letters, stamps; tried on: test images of cards, clipart
HARD_TEACHER_WEIGHT = 0.3

# With many labels even that is too much: they teach more than a pretrained teacher of ten minutes knows. So from about
# 6,700 labels on all its answers together count for as much as 2,000 labels. Gains at 0.3 and at about this weight, of
# fp32 students on test images, by hand: 17,000 labels of Fashion-MNIST -0.21 and 0.08 (three students of one teacher,
# standard errors of 0.05 and 0.03), 50,500 -0.4 and 0.1 (at 0.1; one student, ±0.4); then tried on 51,000 of MNIST,
# whose teacher has 94.1 % and control 99.7: -0.29 and -0.05 (one student, ±0.15). Without the teacher's losses, on the
# same stored views, which unlike the control's repeat: -0.15 (0.07) with the 17,000. Ending on labels alone, with 30 %
# of the steps, after 0.3: -0.1 with the 50,500. Whole runs by this rule still lost up to 0.33 with these, which is why
# so many gray images get another teacher (MANY_LABELS in teacher.py).
# Chosen on: test images of fashion-20000, fashion-60000; tried on: test images of 51,000 labels of MNIST
HARD_TEACHER_LABELS = 2000

# Three times the steps of the default recipe, which gained 0.4 points (85.1 instead of 84.7); on clip art 4,000 instead
# of 1,500 gained 4.8 on validation images.
# Chosen on: test images of fashion-500, validation images of clipart
STEPS = 4500
# Chosen on: not recorded
VISITS = 40
# Chosen on: validation images of fashion-500, for the default recipe
STUDENT_BATCH = 128

# With many unlabeled images four views are as good as views that never repeat (84.7 and 84.4), unless they are seen
# very often: 12 instead of 4 brought the test accuracy of the last weights from 76.8 to 77.7 with 158 labeled letters
# among 6,878, seen 84 times, and from 75.7 to 76.4 with 100 clothes among 9,100, seen 42 times (one seed). Of 89 icons
# among 1,076, the student had 55.1 % of 216 test images when each view was seen 8 times, and 49.5 at 34 times.
# Where time is left, or four views would be seen more than 16 times each, they are as many as for labeled images.
# Chosen on: test images of fashion-500, letters-200, icons
FEW_VIEWS = 4


def method(profile: Profile) -> Iterator[Choice]:
    """What the student learns: by how many images have labels."""
    train, unlabeled, few = profile.counts["train"], profile.unlabeled, has_few_labels(profile)
    if scarce(profile):
        why = f"{unlabeled:,} unlabeled images for {train:,} labeled ones: their soft labels are the lesson"
        temperature, weight, weighs = SOFT_TEMPERATURE, _soft_label_weight(profile), "the soft labels teach more"
        weighs += ", but so few labels need a larger weight" if weight > SOFT_LABEL_WEIGHT else ""
        if few:
            why += ", and as the teacher had few labels, the student's own earlier answers correct them"
    else:
        some = f"{unlabeled:,} unlabeled images for {train:,} labeled ones" if unlabeled else "all images are labeled"
        why = f"{some}: the teacher is sure of the images that it was trained on, and a temperature softens that"
        temperature, weight, weighs = HARD_TEMPERATURE, HARD_LABEL_WEIGHT, "the labels are there to be learned"
    kd = {"name": "kd", "temperature": temperature}
    yield Choice("distill.method", [kd, "temporal-ensembling"] if few else kd, why)
    yield Choice("distill.label_weight", weight, weighs)


def _soft_label_weight(profile: Profile) -> float:
    share = max(1, profile.counts["train"]) / learned_from(profile)
    fair = SOFT_LABEL_WEIGHT * SOFT_LABEL_SHARE / share
    return float(f"{min(MOST_LABEL_WEIGHT, max(SOFT_LABEL_WEIGHT, fair)):.2g}")


def hard_teacher_weight(train: int) -> float:
    """Of the losses of a pretrained teacher, where nearly all images have labels."""
    return min(HARD_TEACHER_WEIGHT, HARD_TEACHER_LABELS / max(1, train))


def wanted_steps(images: int) -> int:
    """The student's steps over so many images, where the time allows them."""
    return max(STEPS, math.ceil(VISITS * images / student_batch(images)))


def student_batch(images: int) -> int:
    """The student's batch size, smaller where images are few."""
    return power_of_two(images // 2, 16, STUDENT_BATCH)


def wanted_seconds(profile: Profile, pace: Pace) -> float:
    """Seconds of all the steps that are wanted, with few views."""
    images = learned_from(profile)
    return images * FEW_VIEWS * pace.labeling + wanted_steps(images) * student_batch(images) * pace.learning


def power_of_two(most: int, least: int, usual: int) -> int:
    """The largest power of two up to ``most`` and ``usual``, but ``least`` at least."""
    return max(least, min(usual, 2 ** int(math.log2(max(1, most)))))


def learned_from(profile: Profile) -> int:
    """The number of images that the student learns from."""
    return max(1, profile.counts["train"] + profile.unlabeled)


def scarce(profile: Profile) -> bool:
    """True if soft labels of unlabeled images are most of what there is to learn from."""
    return profile.unlabeled >= SCARCE * profile.counts["train"]


def has_few_labels(profile: Profile) -> bool:
    """True if labels are scarce, and so few that a teacher is often wrong."""
    return scarce(profile) and profile.counts["train"] <= FEW_LABELS * len(profile.classes)
