"""What the size of the data rules out, before anything is trained."""

from pathlib import Path

import pandas as pd
import pytest

from reflux.components.advice.preflight.data import check_data, check_ingested, slice_counts
from reflux.components.core.artifacts import write_json
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from reflux.components.core.significance import share_bound
from tests.workspaces import ROOT


def check(assignment: str, classes: int = 3, test_images: int = 100, **counts: dict[str, int]) -> None:
    params = check_overrides(["ingest.slices=[camera]", assignment], ROOT / "params.yaml")
    check_data(params, classes, test_images, counts)


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["finetune.rounds=2"], "finetune.rounds = 2 .* the dataset has none: add some .* or set finetune.rounds to 1"),
        (
            ["finetune.adaptation=dan", "ingest.source_domain=elsewhere"],
            "finetune.adaptation = dan .* the dataset has none: add some .* or set finetune.adaptation to none",
        ),
    ],
)
def test_learning_from_no_unlabeled_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assignments: list[str], sentence: str
):
    monkeypatch.chdir(tmp_path)
    params = check_overrides(assignments, ROOT / "params.yaml")
    rows = pd.DataFrame([("test", "cat")], columns=["split", "class_name"])
    Path("artifacts/ingest").mkdir(parents=True)
    rows.to_parquet("artifacts/ingest/manifest.parquet")
    ingested(unlabeled=1)
    check_ingested(params)
    ingested(unlabeled=0)
    with pytest.raises(UserError, match=sentence):
        check_ingested(params)


def ingested(**counts: int) -> None:
    counts = {"train": 10, "test": 100, "unlabeled": 5} | counts
    write_json(Path("artifacts/ingest/dataset.json"), {"classes": ["cat", "dog"], "counts": counts})


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("finetune.strategy=full", "finetune.strategy = full learns labels, and no training image has one"),
        ("distill.finish=labels", "distill.finish = labels learns labels"),
        ("distill.method=deep-mutual-learning", "distill.method = deep-mutual-learning learns labels"),
        ("registry.gates.gain.min=0.01", "registry.gates.gain compares the student with a control that learns labels"),
    ],
)
def test_what_learns_labels_wants_a_labeled_training_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assignment: str, sentence: str
):
    monkeypatch.chdir(tmp_path)
    finished = ["finetune.strategy=none", "pretrain.weights=teacher.safetensors"]
    rows = pd.DataFrame([("test", "cat")], columns=["split", "class_name"])
    Path("artifacts/ingest").mkdir(parents=True)
    rows.to_parquet("artifacts/ingest/manifest.parquet")
    ingested(train=0)
    check_ingested(check_overrides(finished, ROOT / "params.yaml"))
    with pytest.raises(UserError, match=sentence):
        check_ingested(check_overrides([*finished, assignment], ROOT / "params.yaml"))


@pytest.mark.parametrize("method", ["dkd", "[logit-standardization, dist]"])
def test_a_method_for_more_classes_is_refused(method: str):
    check(f"distill.method={method}", classes=3)
    with pytest.raises(UserError, match="needs at least 3 classes, and there are 2: take it out, or set"):
        check(f"distill.method={method}", classes=2)


@pytest.mark.parametrize(
    ("gate", "enough"),
    [
        ("accuracy={min: 0.95, confidence: 0.95}", 59),  # 0.95^59 = 0.0485
        ("jpeg_accuracy={max: 0.05, confidence: 0.95}", 59),
        ("gain={min: 0.9, confidence: 0.95}", 61),
    ],
)
def test_a_gate_that_so_few_test_images_can_not_show_is_refused(gate: str, enough: int):
    check(f"registry.gates.{gate}", test_images=enough)
    name = gate.partition("=")[0]
    with pytest.raises(UserError, match=rf"registry\.gates\.{name}\.m.. can't be passed\. .* with 95 % confidence at"):
        check(f"registry.gates.{gate}", test_images=enough - 1)
    check(f"registry.gates.{gate.replace(', confidence: 0.95', '')}", test_images=1)


def test_the_smallest_gated_slice_decides_with_the_correction_for_their_number():
    surely = "registry.slices.gates={camera: {accuracy: {min: 0.9, confidence: 0.95}}}"
    bound = {n: share_bound(n, n, "lower", 1 - 0.05 / 2) for n in (35, 36)}
    assert bound[35] < 0.9 < bound[36]
    check(surely, camera={"a": 36, "b": 500, "too few": 29})
    with pytest.raises(UserError, match=r"gates\.camera\.accuracy\.min can't be passed\. .* a 1 \(n = 35"):
        check(surely, camera={"a": 35, "b": 500, "too few": 29})


def test_a_gate_on_slices_that_are_all_too_small_is_refused():
    gate = "registry.slices.gates={class: {accuracy: {min: 0.5}}}"
    check(gate, **{"class": {"cat": 30, "dog": 29}})
    with pytest.raises(UserError, match="no slice of it has 30 test images"):
        check(gate, **{"class": {"cat": 29, "dog": 29}})


def test_slices_are_counted_among_the_test_images(tmp_path: Path):
    rows = [("test", "cat", "a"), ("test", "cat", "b"), ("test", "dog", "b"), ("train", "dog", "a")]
    pd.DataFrame(rows, columns=["split", "class_name", "slice:camera"]).to_parquet(tmp_path / "manifest.parquet")
    assert slice_counts(tmp_path / "manifest.parquet", ["class", "camera"]) == {
        "class": {"cat": 2, "dog": 1},
        "camera": {"a": 1, "b": 2},
    }
    assert slice_counts(tmp_path / "manifest.parquet", []) == {}
