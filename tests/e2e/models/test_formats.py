"""From a folder of images to a champion in another format than ONNX, which others can ask without this project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reflux.components.core.artifacts import read_json
from tests.e2e.command import reflux

pytestmark = pytest.mark.long

ASK = """
import sys, json, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
kept = np.load(sys.argv[2])
logits = mlflow.pyfunc.load_model(f"models:/{sys.argv[3]}@champion").predict(kept["pixels"])["logits"]
print(json.dumps([int((logits.argmax(axis=1) == kept["predicted"]).sum()), len(kept["pixels"])]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_project, converters_home) -> Path:
    """A project that the first format trains; the others compute what depends on theirs, for models of their own."""
    folder = tiny_project(tmp_path_factory.mktemp("formats") / "project")
    (folder / ".reflux/converters").symlink_to(converters_home)
    return folder


@pytest.mark.parametrize(
    ("ships", "file", "runtime", "code"),
    [
        ("executorch-int8", "student-int8.pte", "executorch", "load_program"),
        ("litert-int8", "student-int8.tflite", "ai-edge-litert", "Interpreter"),
        ("openvino-int8", "student-openvino-int8.zip", "openvino", "ZipFile"),
    ],
)
def test_a_run_ends_with_a_champion_that_predict_mlflow_and_the_smoke_test_answer_from(
    project: Path, ships: str, file: str, runtime: str, code: str, tmp_path: Path
) -> None:
    pytest.importorskip(runtime.replace("-", "_"), reason=f"it needs {runtime}")
    model = f"shapes-{ships}"
    done = reflux(project, "run", "-S", f"compress.ships={ships}", "-S", f"registry.model_name={model}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{model} version 1 is the new @champion." in done.stdout
    smoke = f"loaded the files through MLflow and {runtime} and gave the recorded answers"
    assert smoke in " ".join(done.stdout.split())
    path = project / "artifacts/compress/edge" / file
    decision = read_json(project / "artifacts/promote/decision.json")
    assert decision["figures"]["size_bytes"] == path.stat().st_size
    card = (project / "artifacts/evaluate/model-card.md").read_text(encoding="utf-8")
    assert f'{code}("edge/{file}")' in card

    answered = reflux(project, "predict", "data/shapes/test/wave/wave-3.png")
    assert answered.returncode == 0, answered.stderr
    assert f"{model} version 1" in answered.stdout

    command = [sys.executable, "-I", "-c", ASK, f"sqlite:///{project}/mlflow.db"]
    command += [str(project / "artifacts/evaluate/probe.npz"), model]
    asked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    right, images = json.loads(asked.stdout.splitlines()[-1])
    assert right == images > 0

    benched = reflux(project, "bench", str(path.relative_to(project)))
    assert benched.returncode == 0, benched.stdout + benched.stderr
    assert f"edge/{file}" in benched.stdout

    again = reflux(project, "run")
    assert "nothing was trained" in again.stdout, again.stdout + again.stderr
