"""``reflux gc`` in a project with runs of long ago, whose state is read back from MLflow and the disk."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import ViewType

from reflux.components.core.artifacts import write_json
from reflux.components.core.params.file import override_params
from reflux.components.registry.unused import runs as unused
from tests.nights import flow_runs, flow_runs_left, night, with_file

PARAMS = Path(__file__).parents[4] / "params.yaml"
KEPT, OLD = "1" * 64, "2" * 64


@pytest.fixture
def project(mlflow_home, monkeypatch) -> str:
    """A project with old runs, a checkpoint and soft labels; returns the id of its experiment."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(mlflow_home.parent))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    shutil.copy(PARAMS, "params.yaml")
    override_params(["project.name=shoes", "registry.model_name=shoes-student"])
    experiment = MlflowClient().create_experiment("shoes", (mlflow_home / "mlartifacts").as_uri())
    for _ in range(unused.LAST):
        night(experiment, 1)
    with_file(night(experiment, 100))
    write(Path(".reflux/checkpoints/finetune/1.pt"), 100)
    write(Path(f".reflux/soft-labels/{OLD[:32]}/0.npy"), 100)
    write(Path(f".reflux/soft-labels/{KEPT[:32]}/0.npy"), 100)
    write_json(Path("artifacts/label/manifest.json"), {"key": KEPT})
    return experiment


def write(file: Path, days_ago: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(1000))
    at = time.time() - days_ago * 24 * 3600
    os.utime(file, (at, at))


def rows(out: str) -> list[tuple[str, ...]]:
    """The lines of the table: what, how many, size."""
    lines = [line.split("  ") for line in out.splitlines()[1:] if "  " in line]
    return [tuple(cell.strip() for cell in line if cell.strip())[:3] for line in lines]


def everything() -> set[Path]:
    return {path for path in Path().rglob("*") if path.is_file() and ".lock" not in path.suffixes}


def test_a_dry_run_says_what_would_go_and_changes_nothing(project, call_reflux):
    before, runs = everything(), MlflowClient().search_runs([project], run_view_type=ViewType.ALL)
    code, out, err = call_reflux("gc", "--dry-run")
    assert (code, err) == (0, "")
    assert rows(out) == [
        ("checkpoints", "1", "1.0 kB"),
        ("stores of soft labels", "1", "1.0 kB"),
        ("runs in MLflow", "1", "1.0 kB"),
    ]
    assert out.endswith("Nothing was removed, as this is a dry run.\n")
    assert everything() == before
    assert len(MlflowClient().search_runs([project], run_view_type=ViewType.ALL)) == len(runs)


def test_what_goes_is_gone_and_a_second_call_finds_nothing(project, call_reflux):
    code, out, err = call_reflux("gc")
    assert (code, err) == (0, "")
    assert out.endswith("\nRemoved.\n")
    assert [path.name for path in Path(".reflux/soft-labels").iterdir()] == [KEPT[:32]]
    assert list(Path(".reflux/checkpoints").iterdir()) == []
    assert len(MlflowClient().search_runs([project], run_view_type=ViewType.ALL)) == unused.LAST
    assert not [path for path in Path("mlartifacts").rglob("*") if path.is_file()]
    code, out, err = call_reflux("gc")
    assert (code, err) == (0, "")
    assert out.startswith("Nothing to remove: ")


def test_nothing_is_removed_that_is_younger_than_what_was_asked_for(project, call_reflux):
    assert call_reflux("gc", "--older-than", "101d")[1].startswith("Nothing to remove: ")
    assert len(rows(call_reflux("gc", "--older-than", "14w", "--dry-run")[1])) == 3


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_it_asks_first(project, call_reflux, monkeypatch, answer, removed):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: answer)
    code, out, _ = call_reflux("gc")
    assert code == 0
    assert out.endswith("\nRemoved.\n" if removed else "Nothing was removed.\n")
    assert Path(".reflux/checkpoints/finetune/1.pt").exists() is not removed


def test_it_waits_for_no_answer_where_it_was_told_not_to_ask(project, call_reflux, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert call_reflux("gc", "--yes")[1].endswith("\nRemoved.\n")


def test_nothing_is_removed_under_a_run(project, call_reflux):
    with FileLock(".reflux/run.lock"):
        code, out, err = call_reflux("gc")
    assert (code, out) == (2, "")
    assert err.startswith("Error: Another `reflux run`")
    assert Path(".reflux/checkpoints/finetune/1.pt").is_file()


def test_what_workers_of_this_machine_keep_goes_as_well_unless_a_run_has_it(
    project, call_reflux, tmp_path, monkeypatch
):
    monkeypatch.setenv("REFLUX_HOME", str(tmp_path / "kept"))
    idle, busy = (tmp_path / "kept" / name / "checkpoints/distill/1.pt" for name in ("shoes", "shoes.2"))
    write(idle, 100)
    write(busy, 100)
    with FileLock(busy.parents[2] / "flow-run.lock"):
        assert ("checkpoints", "2", "2.0 kB") in rows(call_reflux("gc")[1])
    assert (idle.exists(), busy.exists()) == (False, True)


@pytest.mark.slow
def test_old_flow_runs_of_the_embedded_server_go_and_that_of_a_version_stays(project, prefect_home):
    home, mlflow = prefect_home(Path(".reflux/prefect")), MlflowClient()
    old, kept, new = flow_runs(home, [100, 100, 1])
    mlflow.create_registered_model("shoes-student")
    mlflow.create_model_version("shoes-student", "mlartifacts/any", tags={"prefect.flow_run_id": str(kept)})
    command = [sys.executable, "-m", "reflux.flows.cli", "gc"]  # as Prefect reads its settings once a process
    for options, left in ((["--dry-run"], {old, kept, new}), ([], {kept, new})):
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert ("flow runs in Prefect", "1", "unknown") in rows(done.stdout)
        assert flow_runs_left(home) == left
