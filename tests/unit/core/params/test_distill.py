import pytest
from pydantic import ValidationError

from reflux.components.core.params.distill import (
    METHODS,
    AttentionTransfer,
    Distill,
    Kd,
    LogitStandardization,
    Loss,
    targets_from,
)


def settings(method: object, **others: object) -> Distill:
    return Distill(method=method, label_weight=0.1, teacher_weight=1.0, **others)


def test_a_second_method_of_a_name_is_refused_and_the_first_stays():
    with pytest.raises(ValueError, match=r"Two methods are named kd\."):

        class Other(Loss):
            name: str = "kd"

    assert METHODS["kd"] is Kd


def test_a_name_an_entry_and_a_list_of_both_are_the_same_method():
    several = settings(["kd", {"name": "fitnet", "weight": 50}]).method
    assert settings("kd").method == settings({"name": "kd"}).method == settings(Kd()).method == several[:1]
    assert (type(several[1]), several[1].weight) == (METHODS["fitnet"], 50.0)


def test_the_arguments_of_a_loss_are_its_params_without_weight_and_layers():
    assert METHODS["rkd"]().settings == {"distance": 25.0, "angle": 50.0}
    assert Kd(weight=2.0, warmup=0.5, temperature=3.0).settings == {"temperature": 3.0}


def test_layers_are_compared_in_pairs():
    assert Kd().layer_pairs == ()
    assert METHODS["fitnet"](student="stage:1").layer_pairs == (("stage:1", "stage:-2"),)
    assert AttentionTransfer(student=("a", "b"), teacher=("c", "d")).layer_pairs == (("a", "c"), ("b", "d"))
    with pytest.raises(ValidationError, match="names 1 layers of the student and 2 of the teacher; name as many"):
        AttentionTransfer(student=("stage:1",))


def test_layers_are_compared_with_a_live_teacher_only():
    assert (targets_from(settings("kd")), targets_from(settings(["kd", "fitnet"]))) == ("store", "teacher")
    with pytest.raises(ValidationError, match="fitnet compares features, and only soft labels are stored"):
        settings(["kd", "fitnet"], teacher="cached")


def test_a_schedule_or_a_modifier_alone_stands_for_kd():
    plain, standardized, both = (
        settings(method)
        for method in ("born-again", "logit-standardization", ["logit-standardization", "dkd", "teacher-assistant"])
    )
    assert [(loss.name, loss.weight) for loss in plain.losses] == [("kd", 1.0)]
    assert [(loss.name, loss.weight) for loss in standardized.losses] == [("kd", 1.0)]
    assert [loss.name for loss in both.losses] == ["dkd"]
    assert (plain.standardization, both.standardization) == (None, LogitStandardization())
    assert both.schedule is not None
    assert both.schedule.name == "teacher-assistant"


def test_the_losses_next_to_logit_standardization_leave_the_temperature_to_it():
    both = settings([{"name": "logit-standardization", "weight": 4, "temperature": 1.5}, "kd"])
    assert both.standardization == LogitStandardization(weight=4.0, temperature=1.5)
    with pytest.raises(ValidationError, match="kd takes logit-standardization's temperature; set it there"):
        settings(["logit-standardization", {"name": "kd", "temperature": 3}])
    assert (
        settings(["logit-standardization", {"name": "crd", "temperature": 0.1}]).losses[0].settings["temperature"]
        == 0.1
    )


@pytest.mark.parametrize(
    ("method", "weight"),
    [
        ("kd", 0.1),
        ("logit-standardization", 0.1),
        ("born-again", 0.1),
        ("mse-logits", 0.0),
        ("pseudo-labels", 0.1),
        ("dkd", 1.0),
        ("fitnet", 1.0),
        ("deep-mutual-learning", 1.0),
        (["dist", "kd"], 1.0),
        (["teacher-assistant", "kd", "fitnet"], 0.1),
    ],
)
def test_the_labels_weigh_as_in_the_first_methods_paper_unless_the_params_say_otherwise(method: object, weight: float):
    assert Distill(method=method, teacher_weight=1.0).label_weight == weight
    assert Distill(method=method, label_weight=None, teacher_weight=1.0).label_weight == weight
    assert Distill(method=method, label_weight=0.3, teacher_weight=1.0).label_weight == 0.3
