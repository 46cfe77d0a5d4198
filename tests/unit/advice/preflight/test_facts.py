"""What a preflight's facts are kept by, and what they say about the gates."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from reflux.components.advice.preflight.facts import refuse_hopeless_gates, student_file, whole_file
from reflux.components.core import contract
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from tests.workspaces import ROOT


def params(*assignments: str):
    return check_overrides(list(assignments), ROOT / "params.yaml")


@pytest.mark.parametrize(
    "assignment",
    [
        *("student.model=resnet8", "student.image_size=32", "ingest.channels=3", "compress.max_logit_difference=0.01"),
        *(
            "pretrain.model=resnet20",
            "finetune.image_size=64",
            "finetune.strategy=lp-ft",
            "distill.method=fitnet",
            "distill.label_weight=0.2",
        ),
        *("run.device=cuda", "student.weights=a.safetensors", "distill.teachers=[a.safetensors]"),
    ],
)
def test_what_can_change_the_outcome_is_checked_again(assignment: str):
    assert whole_file(params(assignment)) != whole_file(params())


@pytest.mark.parametrize("assignment", ["pretrain.weights={}", "student.weights={}", "distill.teachers=[{}]"])
def test_weights_that_are_written_anew_or_gone_are_checked_again(tmp_path: Path, assignment: str):
    file = tmp_path / "a.safetensors"
    named, kept = params(assignment.format(file)), set()
    for content in (b"one", b"other"):
        file.write_bytes(content)
        kept.add(whole_file(named))
    file.unlink()
    assert len({whole_file(named), *kept}) == 3


@pytest.mark.parametrize("assignment", ["student.steps=9", "seed=3", "registry.gates.size_kb.max=1", "run.threads=1"])
def test_what_cannot_is_not(assignment: str):
    assert whole_file(params(assignment)) == whole_file(params())


def test_another_method_exports_no_student_again():
    assert student_file(params("distill.method=fitnet")) == student_file(params())
    assert student_file(params("student.image_size=32")) != student_file(params())
    pruned = ("student.weights=a.safetensors", "student.prune=0.5")
    assert student_file(params(*pruned)) != student_file(params(pruned[0])) == student_file(params())


FACTS = {"size_bytes": {"onnx": 184 * 1024, "onnx_int8": 56 * 1024}, "params": 46_914}


@pytest.mark.parametrize(("gate", "fits", "less"), [("size_kb", 184.0, 183.9), ("params", 46_914.0, 46_913.0)])
def test_a_file_as_large_as_its_gate_is_not_refused_and_a_larger_one_is(gate, fits, less):
    refused = []
    for limit in (fits, less):
        gates = {gate: {"max": limit, "min": 10 * limit}, "accuracy": {"max": 0.1}, "latency_ms_p95": {"max": 0.0}}
        try:
            refuse_hopeless_gates(FACTS, gates, "resnet8_slim", "onnx")
        except UserError:
            refused.append(limit)
    assert refused == [less]


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        (
            {"size_kb": {"max": 183.9}},
            "size_kb.max = 183.9 can't be passed: size of student.model = a is 184 KB",
        ),
        (
            {"params": {"max": 46_913.0}},
            "params.max = 46,913 can't be passed: parameters of student.model = a is 46,914",
        ),
    ],
)
def test_a_file_that_is_too_large_untrained_is_refused(gates, words):
    with pytest.raises(UserError, match=words):
        refuse_hopeless_gates(FACTS, gates, "a", "onnx")


@pytest.mark.parametrize(("ships", "least"), [("onnx", 184), ("onnx-int8", 56), ("auto", 56)])
def test_the_file_that_ships_or_may_ship_is_held_against_the_gate(ships, least):
    refuse_hopeless_gates(FACTS, {"size_kb": {"max": least}}, "a", ships)
    with pytest.raises(UserError, match=f"is {least} KB or more"):
        refuse_hopeless_gates(FACTS, {"size_kb": {"max": least - 1}}, "a", ships)


def test_a_runtime_that_is_not_installed_is_one_sentence(monkeypatch):
    def gone(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(contract, "version", gone)
    assert whole_file(params()) == whole_file(params("compress.ships=onnx-int8"))
    with pytest.raises(UserError) as refused:
        whole_file(params("compress.ships=executorch-int8"))
    assert str(refused.value) == (
        "compress.ships = executorch-int8 needs the package executorch: `pip install executorch`."
    )


def test_a_file_of_another_runtime_is_rehearsed_by_itself():
    first, second = (student_file(params(f"compress.ships={ships}")) for ships in ("executorch", "executorch-int8"))
    assert len({first, second, student_file(params())}) == 3
