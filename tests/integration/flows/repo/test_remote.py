"""DVC's remote, with real DVC: what one clone has computed another restores, and what could not be stored is kept."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from reflux.components.core.errors import UserError
from reflux.flows.local.environment import QUIET
from reflux.flows.outcome import StageFailed, StageOutcome
from reflux.flows.pipeline import tasks
from reflux.flows.repo import remote
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.stages import Runner

pytestmark = pytest.mark.slow

PIPELINE = """
stages:
  double:
    cmd: python double.py
    deps: [double.py, number.txt]
    outs: [doubled.txt]
"""
SCRIPT = """
from pathlib import Path
Path("doubled.txt").write_text(str(2 * int(Path("number.txt").read_text())))
with open("../executions.txt", "a") as file:
    file.write("once\\n")
"""


class Silent:
    def event(self, stage, event): ...

    def line(self, stage, text): ...

    def executing(self, stage): ...


@pytest.fixture
def clones(tmp_path, monkeypatch) -> list[Path]:
    """Two copies of a pipeline with one stage, each with its own cache, and one remote."""
    monkeypatch.setenv("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    first = tmp_path / "first"
    first.mkdir()
    (first / "dvc.yaml").write_text(PIPELINE)
    (first / "double.py").write_text(SCRIPT)
    (first / "number.txt").write_text("21")
    dvc = [sys.executable, "-m", "dvc"]
    settings = {**os.environ, **QUIET}
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=first, check=True, env=settings)
    subprocess.run(
        [*dvc, "remote", "add", "-q", "-d", "store", str(tmp_path / "remote")], cwd=first, check=True, env=settings
    )
    shutil.copytree(first, tmp_path / "second")
    monkeypatch.chdir(first)
    return [first, tmp_path / "second"]


def reproduce() -> StageOutcome:
    with Runner(Silent(), {}, pull=True) as runner:
        return runner.run("double")


def executions(folder: Path) -> int:
    return len((folder.parent / "executions.txt").read_text().splitlines())


def test_what_one_clone_has_computed_another_restores(clones, monkeypatch):
    assert remote.name() == "store"
    assert reproduce() is StageOutcome.RAN
    remote.push("store", "double")
    monkeypatch.chdir(clones[1])
    assert reproduce() is StageOutcome.CACHED
    assert Path("doubled.txt").read_text() == "42"
    assert executions(clones[0]) == 1


def test_a_remote_that_is_away_fails_in_one_sentence_and_the_next_run_computes_nothing(clones, monkeypatch):
    store = clones[0].parent / "remote"
    store.write_text("a file where the remote's folder should be")
    with Runner(Silent(), {}) as runner:
        assert runner.run("double") is StageOutcome.RAN
    with pytest.raises(StageFailed) as failed:
        remote.push("store", "double")
    assert failed.value.user_error
    assert "\n" not in str(failed.value)
    assert str(failed.value).startswith("push: double can't be stored on DVC's remote store (")
    cache = clones[0] / ".dvc" / "cache"
    assert f"it is kept in {cache}: once the remote answers, the next run stores it" in str(failed.value)

    store.unlink()
    assert reproduce() is StageOutcome.CACHED
    remote.push("store")
    monkeypatch.chdir(clones[1])
    assert reproduce() is StageOutcome.CACHED
    assert executions(clones[0]) == 1


@pytest.mark.skipif(find_spec("dvc_s3") is None, reason="the remote that is away is an S3 server: needs dvc-s3")
def test_a_stage_that_can_not_ask_the_remote_is_tried_again_and_says_why(clones):
    """An object store that does not answer; the stage is not computed a second time for want of it."""
    settings = {**os.environ, **QUIET}
    for option in (["url", "s3://bucket/path"], ["endpointurl", "http://127.0.0.1:9"], ["access_key_id", "a"]):
        command = [sys.executable, "-m", "dvc", "remote", "modify", "-q", "store", *option]
        subprocess.run(command, check=True, env=settings)
    with pytest.raises(StageFailed, match="DVC's remote does not return what is stored there") as failed:
        reproduce()
    assert failed.value.transient
    assert failed.value.user_error
    assert not Path("doubled.txt").exists()


def test_a_push_is_tried_again_before_it_fails(clones, prefect_api):
    from prefect import flow

    assert reproduce() is StageOutcome.RAN
    store = clones[0].parent / "remote"
    store.write_text("a file where the remote's folder should be")
    attempts = tasks.push.with_options(retries=2, retry_delay_seconds=0)

    @flow
    def storing() -> None:
        attempts("store", "double")

    with pytest.raises(StageFailed):
        storing()
    runs = httpx.post(f"{prefect_api}/task_runs/filter", json={}, timeout=120).json()
    assert [run["run_count"] for run in runs if run["name"].startswith("push")] == [3]


def test_damaged_settings_of_dvc_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n<<<<<<< HEAD\n")
    sentence = r"^DVC refuses this project \(.*config file error.*\): correct that, or restore the file from git\.$"
    for ask in (prepare_dvc, remote.name):
        with pytest.raises(UserError, match=sentence):
            ask()
