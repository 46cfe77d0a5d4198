import pytest

from reflux.components.advice.plan import times
from reflux.components.advice.plan.times import experience_of, measurements, run_seconds, stage_seconds
from reflux.components.core.contract import STEPS
from reflux.components.core.params.file import check_overrides
from tests.workspaces import ROOT

COUNTS = {"train": 500, "val": 100, "test": 1000, "unlabeled": 4500}
SPEEDS = {
    "start": 0.0,  # so that only work takes time
    "teacher training": 0.01,
    "teacher inference": 0.001,
    "student training": 0.0002,
    "student inference": 0.00005,
    "resnet20 training": 0.0004,
    "resnet20 inference": 0.0001,
    "teacher view": 0.0,
    "student view": 0.0,
}
RECIPE = [
    "finetune.epochs=10",
    "finetune.batch_size=50",
    "student.steps=1000",
    "student.batch_size=100",
    "label.views=4",
]
RECIPE += ["student.eval_every=100"]
VALIDATING = 10 * (100 + 500) * 0.00005
CONTROL = 100_000 * 0.0002 + VALIDATING


def params(*assignments: str):
    return check_overrides([*RECIPE, *assignments], ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("assignments", "stage", "seconds"),
    [
        ([], "finetune", 10 * 500 * 0.01 + 10 * 600 * 0.001),
        (["finetune.strategy=gradual-unfreezing"], "finetune", 10 * 500 * 0.01 + 10 * 600 * 0.001),
        (
            ["finetune.rounds=3", "finetune.round_epochs=2"],
            "finetune",
            10 * 500 * 0.01 + 10 * 600 * 0.001 + 2 * (4500 * 0.001 + 2 * (5000 * 0.01 + 600 * 0.001)),
        ),
        (["finetune.epochs=20"], "finetune", 20 * 500 * 0.01 + 10 * 600 * 0.001),
        (["finetune.batch_size=400"], "finetune", 10 * 400 * 0.01 + 10 * 600 * 0.001),  # what fills no batch waits
        (["distill.when=joint", "student.weights=pypi"], "finetune", 2000 * 0.001 + 100 * 0.001 + 300 * 2000 * 1.5e-6),
        ([], "pretrain", 0),
        (["pretrain.mode=self-supervised"], "pretrain", 1000 * 256 * 0.01 + 10 * 600 * 0.001),
        (
            ["pretrain.mode=self-supervised", "pretrain.learns=both", "pretrain.steps=10"],
            "pretrain",
            10 * 256 * (0.01 + 0.0002) + 10 * 600 * (0.001 + 0.00005),
        ),
        (
            ["pretrain.mode=supervised", "pretrain.source=x"],
            "pretrain",
            1000 * 128 * 0.01 + (10 * (70 + 400) + 80) * 0.001,
        ),
        ([], "label", 4 * 5000 * 0.001),
        (["label.views=8"], "label", 8 * 5000 * 0.001),
        (["distill.teacher=live"], "label", 0),
        (["distill.method=deep-mutual-learning"], "label", 0),
        ([], "control", CONTROL),
        ([], "distill", CONTROL),
        (["student.steps=2000"], "distill", 2 * CONTROL),
        (["distill.teacher=live"], "distill", CONTROL + 100_000 * 0.001),
        (["student.weights=distilled-features"], "distill", CONTROL + 30_000 * 0.001),
        (["distill.finish=labels"], "distill", CONTROL),
        (["distill.finish=labels", "distill.teacher=live"], "distill", CONTROL + 90_000 * 0.001),
        (["distill.method=[kd, born-again]"], "distill", 2 * CONTROL + 100_000 * 0.00005),
        (["distill.method=[kd, teacher-assistant]"], "distill", 2 * CONTROL + 100_000 * (0.0001 + 0.0002)),
        (["distill.method={name: deep-mutual-learning, peers: 2}"], "distill", CONTROL + 100_000 * 2 * 0.0002),
    ],
)
def test_a_stage_takes_as_long_as_what_it_computes(assignments, stage, seconds):
    others = {"pretrain_train": 400, "pretrain_val": 70, "pretrain_test": 80}
    times = stage_seconds(params(*assignments), COUNTS | others, SPEEDS)
    assert times[stage] == pytest.approx(seconds)


def test_every_step_of_a_run_has_a_time_that_grows_with_the_start_of_a_process():
    slow = stage_seconds(params(), COUNTS, SPEEDS | {"start": 5.0})
    fast = stage_seconds(params(), COUNTS, SPEEDS | {"start": 2.5})
    assert list(slow) == list(STEPS)
    assert all(slow[name] > fast[name] > 0 for name in STEPS)


def test_images_that_take_long_to_decode_take_as_long_to_ingest():
    assert stage_seconds(params(), COUNTS, SPEEDS | {"decoding": 0.002})["ingest"] == pytest.approx(6100 * 0.002)
    fast = SPEEDS | {"decoding": 1e-6}  # they are hashed and written, too
    assert stage_seconds(params(), COUNTS, fast)["ingest"] == stage_seconds(params(), COUNTS, SPEEDS)["ingest"]


def test_what_overlaps_counts_once():
    seconds = {"ingest": 5.0, "validate": 1.0, "pretrain": 9.0, "finetune": 10.0, "distill": 20.0, "control": 18.0}
    assert run_seconds(seconds) == pytest.approx(run_seconds({}) + 5 + 9 + 10 + 20)
    assert run_seconds({"control": 18.0}) == pytest.approx(run_seconds({}) + 18)


def test_the_speeds_that_are_measured_are_those_that_are_asked_for():
    asked = measurements(params("distill.method=[kd, teacher-assistant]", "run.threads=3"), 10)
    assert set(asked) == set(SPEEDS)
    assert asked["teacher inference"].arguments[:5] == ("tf_efficientnet_lite0", 80, 28, 3, 10)
    assert all(3 in measure.arguments for name, measure in asked.items() if name != "start")


def test_the_student_is_measured_while_another_computes_where_the_control_will():
    def in_company(*assignments: str, shared: bool = True) -> set[str]:
        asked = measurements(params(*assignments), 10, shared)
        return {name for name, measure in asked.items() if any(each is True for each in measure.arguments[-1:])}

    assert in_company() == {"student training", "student inference"}
    assert in_company(shared=False) == in_company("run.deterministic=true") == set()


def test_an_earlier_run_beats_the_estimate():
    foreseen = stage_seconds(params(), COUNTS, SPEEDS)
    experience = experience_of(params(), COUNTS, SPEEDS, {"finetune": 1.5 * foreseen["finetune"]})
    shorter = stage_seconds(params("finetune.epochs=5"), COUNTS, SPEEDS, experience)
    assert shorter["finetune"] == pytest.approx(1.5 * foreseen["finetune"] / 2)
    assert {name: shorter[name] for name in STEPS if name != "finetune"} == {
        name: foreseen[name] for name in STEPS if name != "finetune"
    }


@pytest.mark.parametrize("factor", [0.1, 10])
def test_a_run_that_was_resumed_or_disturbed_says_nothing(factor):
    foreseen = stage_seconds(params(), COUNTS, SPEEDS)
    assert experience_of(params(), COUNTS, SPEEDS, {"distill": factor * foreseen["distill"]}) == {}


@pytest.mark.parametrize(("adaptation", "domains"), [("none", 2), ("dann", 3)])
def test_a_source_domain_teaches_in_batches_of_its_own(adaptation: str, domains: int):
    chosen = params("ingest.source_domain=elsewhere", f"finetune.adaptation={adaptation}")
    seconds = stage_seconds(chosen, COUNTS | {"source_domain_train": 4500}, SPEEDS)
    steps = 5000 // 100  # of an epoch
    assert seconds["finetune"] == pytest.approx(10 * (steps * 50 * domains * 0.01 + 600 * 0.001))


def test_a_stage_that_someone_adds_is_planned_to_take_a_few_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(times, "STEPS", (*STEPS, "balance"))
    speeds = {**SPEEDS, "start": 2.6}
    assert stage_seconds(params(), COUNTS, speeds)["balance"] == 5
    assert run_seconds(stage_seconds(params(), COUNTS, speeds)) > 5
