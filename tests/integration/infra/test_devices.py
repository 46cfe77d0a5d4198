"""The examples for devices give the classes that ``reflux predict`` gives."""

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.artifacts import download_artifacts
from PIL import Image

from reflux.components.core.runtime import tracking
from reflux.components.modalities.image import preprocess
from reflux.components.registry.register import register
from reflux.components.registry.versions.evaluated_run import Lineage
from tests.trained import SEEN, STORED
from tests.workspaces import ROOT

EXAMPLES = ROOT / "infra/devices"
HEADER = Path("/usr/include/onnxruntime/onnxruntime_cxx_api.h")


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Pictures of every brightness, larger than those that the student was trained on."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{level}.png" for level in range(20, 240, 8)]
    for path in paths:
        noise = rng.integers(-20, 20, (24, 20))
        Image.fromarray((noise + int(path.stem)).clip(0, 255).astype(np.uint8)).save(path)
    return paths


@pytest.fixture
def predicted(finished, tmp_path, monkeypatch, mlflow_template, call_reflux, pictures) -> tuple[Path, dict[str, str]]:
    """The file of a registered version, and the class that ``reflux predict`` gives each picture."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    shutil.copy(mlflow_template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    run = (mlflow := tracking.client()).create_run(tracking.experiment_id(mlflow, "fashion-mnist"))
    lineage = Lineage(run.info.run_id, "a" * 64, "b" * 32 + ".dir", "c" * 40, "flow-1")
    register(Path("artifacts"), "fashion-mnist-student", "fashion-mnist", lineage)
    code, out, err = call_reflux("predict", *map(str, pictures), "--model", "1", "--csv")
    assert (code, err) == (0, "")
    classes = {row["file"]: row["class"] for row in csv.DictReader(io.StringIO(out))}
    assert len(set(classes.values())) > 1
    version = Path(download_artifacts("models:/fashion-mnist-student/1", dst_path=tmp_path / "version"))
    return version / "model.onnx", classes


@pytest.mark.long
def test_python_gives_the_same_classes(predicted, tmp_path):
    file, classes = predicted
    shutil.copy(preprocess.__file__, tmp_path)
    example = (EXAMPLES / "classify.py").read_text().replace('"stored_size": 28', f'"stored_size": {STORED}')
    (tmp_path / "classify.py").write_text(example)
    out = subprocess.check_output([sys.executable, "classify.py", file, *classes], cwd=tmp_path, text=True)
    assert out.splitlines() == [f"{picture}: {name}" for picture, name in classes.items()]


@pytest.mark.long
@pytest.mark.skipif(
    not (HEADER.is_file() and shutil.which("g++")),
    reason="NO C++: apt-get install g++ libonnxruntime-dev nlohmann-json3-dev",
)
def test_cpp_gives_the_same_classes(predicted, tmp_path):
    file, classes = predicted
    images = [preprocess.preprocess(Image.open(path), STORED, 1, SEEN, 1) for path in classes]
    (tmp_path / "pixels").write_bytes(np.concatenate(images).tobytes())
    flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "libonnxruntime"], text=True).split()
    command = ["g++", "-std=c++17", "-Wall", "-Werror", EXAMPLES / "classify.cpp", *flags, "-o", tmp_path / "classify"]
    subprocess.run(command, check=True)
    plain = {"PATH": os.environ["PATH"]}
    out = subprocess.check_output([tmp_path / "classify", file, tmp_path / "pixels"], text=True, env=plain)
    assert out.splitlines() == list(classes.values())
