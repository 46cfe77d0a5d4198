import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution

from reflux.components.advice.tune.space import applied, changes, decides, distributions, held, narrower, present_values
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import targets_from
from reflux.components.core.params.file import check_overrides
from reflux.components.core.params.tune import Space
from tests.workspaces import ROOT

DEFAULT = check_overrides([], ROOT / "params.yaml")
KNOBS = {  # a value other than the present one, and the params that it decides
    "network": ("resnet14_slim", {"student.model": "resnet14_slim"}),
    "width": (0.75, {"student.model": "resnet8_slim_x0.75", "student.steps": 2000, "student.eval_every": 133}),
    "image_size": (21, {"student.image_size": 21}),
    "method": ("dist", {"distill.method": {"name": "dist", "temperature": 1.0}}),
    "temperature": (2.345678, {"distill.method": {"name": "kd", "temperature": 2.35}}),
    "label_weight": (0.5, {"distill.label_weight": 0.5}),
    "lr": (0.02, {"student.lr": 0.02}),
    "weight_decay": (0.01, {"student.weight_decay": 0.01}),
    "steps": (750, {"student.steps": 750, "student.eval_every": 50}),
    "ema_decay": (0.99, {"student.ema_decay": 0.99}),
    "mixup": (0.25, {"student.augment.mixup": 0.25, "distill.mixed_targets": "mixture"}),
    "ships": ("onnx", {"compress.ships": "onnx"}),
}


def params_with(*assignments: str):
    return check_overrides(list(assignments), ROOT / "params.yaml")


def test_the_present_values_change_nothing():
    values = present_values(DEFAULT)
    fixed = DEFAULT.compress.model_copy(update={"ships": "onnx-int8"})  # what auto would most likely take
    assert applied(DEFAULT, changes(values, DEFAULT)) == DEFAULT.model_copy(update={"compress": fixed})


@pytest.mark.parametrize("knob", Space.model_fields)
def test_each_knob_decides_its_params(knob: str):
    value, decided = KNOBS[knob]
    present = present_values(DEFAULT)
    before, after = changes(present, DEFAULT), changes(present | {knob: value}, DEFAULT)
    assert {name: new for name, new in after.items() if before.get(name) != new} == decided
    tried = applied(DEFAULT, after)
    for name, expected in decided.items():
        found = tried
        for part in name.split("."):
            found = getattr(found, part)
        assert found == expected or name == "distill.method"
    if knob in ("method", "temperature"):
        (entry,) = tried.distill.method
        assert {"name": entry.name, "temperature": entry.temperature} == decided["distill.method"]


@pytest.mark.parametrize("knob", Space.model_fields)
def test_each_knob_is_narrowed_by_the_params(knob: str):
    value, _ = KNOBS[knob]
    if knob == "temperature":
        value = 2.5
    drawn = distributions(params_with(f"tune.space.{knob}={value}"))[knob]
    assert drawn.single()
    assert drawn._contains(drawn.to_internal_repr(value))


def test_the_present_student_has_narrower_selves_down_to_the_end_of_the_space():
    values, drawn = present_values(DEFAULT), distributions(DEFAULT)
    assert [each["width"] for each in narrower(values, drawn)] == [0.875, 0.75, 0.625, 0.5]
    assert all(each | {"width": 1.0} == values and held(each, drawn) == each for each in narrower(values, drawn))
    assert narrower(values | {"width": 0.5}, drawn) == []
    assert narrower(values | {"network": "resnet18"}, drawn) == [], "timm's networks have no width"
    assert narrower(values, distributions(params_with("tune.space.width=1"))) == []


def test_what_the_params_leave_out_holds_the_present_student():
    params = params_with("student.model=resnet20", "student.lr=0.1", "student.image_size=32", "compress.ships=auto")
    drawn, present = distributions(params), present_values(params)
    assert held(present, drawn) == {name: value for name, value in present.items() if name in drawn}
    narrow = distributions(params_with("student.lr=0.1", "tune.space.lr=[0.003, 0.03]"))
    assert "lr" not in held({"lr": 0.1}, narrow)


def test_views_that_a_method_remembers_are_not_mixed():
    for method in ("temporal-ensembling", "[kd, temporal-ensembling]"):
        drawn = distributions(params_with(f"distill.method={method}"))["mixup"]
        assert (drawn.low, drawn.high) == (0, 0)
    both = "tune.space.method=[kd, temporal-ensembling]"
    drawn = distributions(params_with(both))["mixup"]
    assert (drawn.low, drawn.high) == (0, 0)
    with pytest.raises(UserError, match=r"names temporal-ensembling, which remembers images, .*mixup and cutmix to 0"):
        distributions(params_with(both, "student.augment.cutmix=0.1"))


def test_every_draw_is_a_student_that_the_params_allow():
    drawn, rng = distributions(DEFAULT), np.random.default_rng(0)
    for _ in range(50):
        values = {
            name: each.choices[rng.integers(len(each.choices))]
            if isinstance(each, CategoricalDistribution)
            else type(each.low)(rng.uniform(each.low, each.high))
            for name, each in drawn.items()
        }
        tried = applied(DEFAULT, changes(values, DEFAULT))
        assert tried.model_copy(update={"student": DEFAULT.student, "distill": DEFAULT.distill}).tune == DEFAULT.tune
        assert type(tried.student).model_validate(tried.student.model_dump()) == tried.student
        assert targets_from(tried.distill) == "store"


def test_settings_that_params_give_the_method_stay():
    params = params_with("distill.method={name: dist, weight: 3.0, temperature: 2.0}")
    changed = changes(present_values(params) | {"temperature": 3.0}, params)
    assert changed["distill.method"] == {"name": "dist", "weight": 3.0, "temperature": 3.0}


def test_several_methods_stay_as_they_are():
    params = params_with("distill.method=[kd, dist]")
    drawn = distributions(params)
    assert "temperature" not in drawn
    assert "distill.method" not in changes(present_values(params), params)


def test_stored_logits_of_mixed_views_fix_the_share_of_those():
    params = params_with("student.augment.mixup=0.3", "distill.mixed_targets=teacher")
    drawn = distributions(params)
    assert (drawn["mixup"].low, drawn["mixup"].high) == (0.3, 0.3)
    assert "distill.mixed_targets" not in changes(present_values(params), params)


def test_pretrained_weights_fix_their_network():
    params = params_with("student.weights=student.safetensors", "student.model=resnet8_slim_x0.5")
    drawn = distributions(params)
    assert drawn["network"].choices == ("resnet8_slim",)
    assert (drawn["width"].low, drawn["width"].high) == (0.5, 0.5)


def test_networks_of_timm_alone_have_no_width():
    params = params_with("student.model=mobilenetv3_small_050", "tune.space.network=mobilenetv3_small_050")
    drawn = distributions(params)
    assert "width" not in drawn
    assert changes(present_values(params), params)["student.model"] == "mobilenetv3_small_050"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("network=resnet8_slm", "No model is named resnet8_slm; did you mean resnet8_slim"),
        ("method=fitnet", "names fitnet, which does not learn from stored soft labels alone"),
        ("method=born-again", "names born-again, which does not learn"),
        ("method=kdd", "tune.space.method names kdd, and no method has this name"),
        ("lr=[0.1, 0.01]", "a range begins with its lowest value"),
        ("network=[]", "it must not be empty"),
    ],
)
def test_a_space_that_is_none_is_refused_in_a_sentence(assignment, sentence):
    with pytest.raises(UserError, match=sentence):
        distributions(params_with(f"tune.space.{assignment}"))


def test_a_study_goes_on_when_a_student_of_it_was_taken():
    params = params_with("tune.space.steps=[750, 1500]")
    taken = changes(present_values(params) | {"width": 0.625, "lr": 0.02, "temperature": 2.0, "steps": 913}, params)
    later = applied(params, taken)
    assert decides(later, distributions(later)) == decides(params, distributions(params))
    other = params_with("tune.space.steps=[750, 1500]", "student.batch_size=64")
    assert decides(other, distributions(other)) != decides(params, distributions(params))
