"""`reflux run` of a student that was pruned and heals on soft labels: it is gated by its own size, and registered."""

import shutil
from pathlib import Path

import pytest

from reflux.components.core.artifacts import read_json
from reflux.components.modalities.image.models.pixel_model import load, parameter_count
from tests.e2e.command import reflux

pytestmark = pytest.mark.long


def test_a_pruned_student_passes_a_gate_that_the_whole_one_can_not(tmp_path: Path, tiny_project):
    pytest.importorskip("torch_pruning", reason="it needs torch-pruning")
    project = tiny_project(tmp_path / "project")
    done = reflux(project, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    model = project / "artifacts/distill/model.safetensors"
    whole = load(model)
    shutil.copy(model, project / "big.safetensors")

    gate = ("-S", "registry.gates.size_kb.max=100", "-S", "compress.ships=onnx")
    refused = reflux(project, "run", *gate)
    assert refused.returncode == 2
    assert "registry.gates.size_kb.max = 100 can't be passed" in refused.stderr
    start = ("-S", "student.weights=big.safetensors", "-S", "student.prune=0.5", "-S", "student.steps=60")
    done = reflux(project, "run", *gate, *start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shapes-student version 2 is" in done.stdout
    healed, control = load(model), load(project / "artifacts/control/model.safetensors")
    assert healed.spec == control.spec
    assert healed.spec.label == "resnet8_slim, 50% pruned"
    assert parameter_count(healed) < 0.5 * parameter_count(whole)
    card = (project / "artifacts/evaluate/model-card.md").read_text(encoding="utf-8")
    assert "without 50% of each layer's channels" in " ".join(card.split())
    assert read_json(project / "artifacts/promote/decision.json")["figures"]["size_bytes"] < 100 * 1024
    assert read_json(project / "artifacts/evaluate/metrics.json")["student"]["params"] == parameter_count(healed)

    answered = reflux(project, "predict", "--model", "2", "data/shapes/test/wave/wave-3.png")
    assert answered.returncode == 0, answered.stderr
    assert "shapes-student version 2" in answered.stdout
    again = reflux(project, "run")
    assert "No stage's data, params or code has changed" in again.stdout
