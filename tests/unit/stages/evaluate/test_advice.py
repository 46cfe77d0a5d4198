import shutil

import pytest

from reflux.components.core.params.file import override_params
from reflux.components.stages.evaluate import advice
from tests.workspaces import ROOT

LED = {"teacher": 0.729, "student": 0.667, "control": 0.697}
CAUGHT_UP = {"teacher": 0.84, "student": 0.845, "control": 0.84}


@pytest.fixture
def remedy(tmp_path):
    """The advice for overrides of the params."""

    def say(*overrides: str, train=3000, unlabeled=0, accuracies=LED, teacher_leads=True) -> str:
        shutil.copy(ROOT / "params.yaml", tmp_path)
        params = override_params(list(overrides), tmp_path / "params.yaml")
        return advice.remedy(params, {"train": train, "val": 9, "unlabeled": unlabeled}, accuracies, teacher_leads)

    return say


def test_few_unlabeled_images_want_soft_labels_that_are_not_memorized(remedy):
    kd = "distill.method={name: kd, temperature: 1}"
    assert remedy(kd, "label.views=4", "student.steps=1500", "student.batch_size=128") == (
        "a higher temperature (distill.method={name: kd, temperature: 4}), "
        "more weight for the labels (distill.label_weight=1), "
        "views that do not repeat (label.views=auto or distill.teacher=live), "
        "more unlabeled images, where most of a gain comes from (0 are next to 3,000 labeled)"
    )


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ("distill.method={name: kd, temperature: 4}", "a higher temperature"),
        ("distill.method=pseudo-labels", "a higher temperature"),
        ("distill.method=[kd, logit-standardization]", "a higher temperature"),
        ("distill.label_weight=1", "more weight for the labels"),
        ("label.views=64", "views that do not repeat"),
        ("label.views=auto", "views that do not repeat"),
        ("distill.teacher=live", "views that do not repeat"),
    ],
)
def test_what_is_set_already_is_not_advised(remedy, override, gone):
    default = ("distill.label_weight=0.1",)
    assert gone in remedy(*default)
    assert gone not in remedy(*default, override)
    assert remedy(*default, override).endswith("where most of a gain comes from (0 are next to 3,000 labeled)")


def test_the_advised_loss_is_the_one_that_is_used(remedy):
    assert "{name: dkd, temperature: 4}" in remedy("distill.method={name: dkd, temperature: 1}")


def test_a_teacher_that_knows_no_more_than_the_control_comes_before_all_else(remedy):
    said = remedy(teacher_leads=False)
    assert said.startswith("a better teacher (another pretrain.model")
    assert said.endswith("as this one (72.9 %) is not measurably better than the control (69.7 %)")


def test_with_many_unlabeled_images_it_depends_on_who_is_ahead(remedy):
    assert remedy(train=500, unlabeled=9000, accuracies=CAUGHT_UP).endswith(
        "as the student (84.5 %) has caught up with this one (84.0 %)"
    )
    steps = remedy("student.steps=1500", train=500, unlabeled=9000)
    assert steps == "more steps (student.steps=3000), as the student is still below its teacher"


def test_peers_have_no_teacher_to_improve(remedy):
    assert remedy("distill.method=deep-mutual-learning", teacher_leads=False).startswith("a teacher (")
