"""``reflux bench`` on the files of a tiny run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.contract import made
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime import tracking
from reflux.components.observe.boards.declared import BENCH, STUDENTS
from reflux.components.registry.register import register
from reflux.components.registry.versions.evaluated_run import Lineage
from tests.unit.advice.bench.test_report import report

pytestmark = pytest.mark.slow


@pytest.fixture
def project(finished, tmp_path, monkeypatch, mlflow_template):
    """A copy of the finished project as the working folder."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    shutil.copy(mlflow_template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.mark.long
def test_the_files_of_the_last_run_are_one_table_and_a_run_in_mlflow(project, call_reflux, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = call_reflux("bench", "--batch", "1,4")
    assert (code, err) == (0, "")
    header, *lines = out[out.index("file ") :].splitlines()
    assert header.split()[:3] == ["file", "KB", "accuracy"]
    assert [line.split()[0] for line in lines[:6:2]] == ["student.onnx", "student-int8.onnx", "student.pt2"]
    assert [line.split()[:2] for line in lines[1:6:2]] == [["1", "4"]] * 3, "a line for each number of images"
    assert "on 40 validation images" in out

    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("fashion-mnist").experiment_id
    (parent,) = mlflow.search_runs([experiment], f"{STUDENTS} AND tags.run_kind = '{BENCH}'")
    assert [file.path for file in mlflow.list_artifacts(parent.info.run_id)] == ["bench.json", "images"]
    (picture, *_) = (file.path for file in mlflow.list_artifacts(parent.info.run_id, "images"))
    assert picture.startswith("images/bench~files")
    files = {run.info.run_name: run for run in mlflow.search_runs([experiment], "tags.run_kind = 'bench file'")}
    parity = read_json(Path("artifacts/compress/parity.json"))
    for kind, file in made("auto").items():
        name = file.name
        figures, params = files[name].data.metrics, files[name].data.params
        assert (figures["size_bytes"], params["sha256"]) == (parity[kind]["size_bytes"], parity[kind]["sha256"])
        assert files[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert figures["threads_1/batch_4/cpu_low"] <= figures["threads_1/batch_4/cpu_high"]
        assert figures["threads_1/batch_1/ms_p50"] <= figures["threads_1/batch_1/ms_p95"]
        assert figures["load_ms"] > 0
    assert files["student.pt2"].data.metrics["agreement"] == 1
    assert files["student.onnx"].data.metrics["threads_1/batch_1/cpu"] == 1
    torchs, onnxruntimes = (files[name].data.metrics["peak_mb"] for name in ("student.pt2", "student.onnx"))
    assert 20 < onnxruntimes < torchs, "a process that runs an ONNX file loads no torch"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--threads", "0"], "--threads 0 is no list of numbers from 1 on: write --threads 1,2 for example."),
        (["--batch", "1,eight"], "--batch 1,eight is no list of numbers"),
        (["--threads", "1,4096"], "--threads 4096 is more than the "),
        (["gone.onnx"], "gone.onnx is not a file: give one that `reflux run` made, or the number of a version."),
        (
            ["params.yaml"],
            "params.yaml has no runtime here: give a file that ends with .pt2, .onnx, .pte, .tflite, .zip.",
        ),
        (["torn.onnx"], "torn.onnx can't be read"),
        (["torn.pt2"], "torn.pt2 can't be read"),
        (["champion"], "No model is registered as fashion-mnist-student"),
    ],
)
def test_what_can_not_be_measured_is_one_sentence(project, call_reflux, arguments, sentence):
    for suffix in ("onnx", "pt2"):
        Path(f"torn.{suffix}").write_bytes(b"torn")
    code, _, err = call_reflux("bench", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"Error: {sentence}")


def test_files_of_another_dataset_are_one_sentence(project, call_reflux):
    write_json(Path("artifacts/ingest/dataset.json"), {"classes": list("abcd")})
    code, _, err = call_reflux("bench")
    sentence = "student.onnx tells 3 classes apart, and the validation images here have 4: give files of this dataset."
    assert (code, err) == (2, f"Error: {sentence}\n")


def test_without_a_run_it_says_what_to_do(project, call_reflux):
    Path("artifacts/compress/student.onnx").rename("mine.onnx")
    Path("artifacts/compress/parity.json").unlink()
    assert "artifacts/compress has no files of a run: run `reflux run` first" in call_reflux("bench")[2]
    shutil.rmtree("artifacts/ingest")
    assert "has no validation images: run `reflux run` first" in call_reflux("bench", "mine.onnx")[2]
    Path("params.yaml").unlink()
    assert "params.yaml is missing in" in call_reflux("bench")[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--export", "here", "--threads", "2"], "A gate reads the time of one image on one thread"),
        (["--export", "artifacts"], "artifacts exists already: name a new folder."),
        (["--export", "here", "torn.onnx"], "torn.onnx can't be read"),
        (["--import", "gone.json"], "gone.json is not a file: give the one that bench.py wrote on the device."),
        (["--import", "params.yaml"], "params.yaml is no report of bench.py (it is not valid JSON"),
        (["--import", "report.json", "3"], "--import takes a report alone"),
        (["--import", "report.json"], "report.json is the report of other files: student.onnx (aaaaaaaaaaaa…), "),
    ],
)
def test_what_is_no_export_and_no_report_is_one_sentence_and_leaves_nothing(project, call_reflux, arguments, sentence):
    Path("torn.onnx").write_bytes(b"torn")
    Path("report.json").write_text(report().model_dump_json())
    code, _, err = call_reflux("bench", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"Error: {sentence}")
    assert not [path for path in Path().iterdir() if "here" in path.name]


@pytest.mark.long
def test_a_device_without_reflux_measures_a_version_and_a_gate_judges_by_its_report(project, call_reflux):
    """The device is this machine, in a process that finds neither Reflux nor torch."""
    run = (mlflow := tracking.client()).create_run(tracking.experiment_id(mlflow, "fashion-mnist"))
    lineage = Lineage(run.info.run_id, "a" * 64, "b" * 32 + ".dir", "c" * 40, "flow-1")
    register(Path("artifacts"), "fashion-mnist-student", "fashion-mnist", lineage)
    gates = "{accuracy: {min: 0.1}, latency_ms_p95: {max: 1000, device: pi5}}"
    override_params([f"registry.gates={gates}", "registry.worse_than_control=allow"])
    code, out, _ = call_reflux("promote", "1")
    assert (code, "version 1 is UNKNOWN, as @challenger" in out) == (3, True)
    assert "`reflux bench 1 --export DIR` makes the folder to run there" in " ".join(out.split())

    code, out, err = call_reflux("bench", "1", "artifacts/compress/student.pt2", "--export", "pi5", "--batch", "1,4")
    assert (code, err) == (0, "")
    assert "pi5 has version 1, student.pt2 and 40 validation images" in " ".join(out.split())
    folder = Path("pi5").rename(Path("..", "pi5")).resolve()
    bench = (folder / "bench.py").read_text()
    block = "import sys; sys.modules.update(dict.fromkeys(('torch', 'reflux'))); "
    (folder / "blocked.py").write_text(block + f"__file__ = {str(folder / 'bench.py')!r}\n" + bench)
    command = [sys.executable, "-I", folder / "blocked.py", "--device", "pi5"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "student.pt2 is left out: torch is not installed here." in done.stdout
    found = read_json(folder / "report-pi5.json")
    assert (found["device"], found["images"], [row["name"] for row in found["rows"]]) == ("pi5", 40, ["version 1"])
    assert found["rows"][0]["reproduced"] == found["rows"][0]["agreement"] == 1

    code, out, err = call_reflux("bench", "--import", str(folder / "report-pi5.json"))
    assert (code, err) == (0, "")
    assert "`reflux promote 1` judges it again." in out
    code, out, _ = call_reflux("promote", "1")
    assert (code, "version 1 is the new @champion" in out) == (0, True)
    assert "is within the maximum of 1,000 ms (onnxruntime" in " ".join(out.split())
