import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reflux.components.core.contract import STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import lineage
from reflux.components.core.runtime.stage import Stage
from tests.workspaces import PACKAGE, ROOT


def test_a_checkpoint_is_kept_under_the_code_the_environment_the_seed_and_the_sections_that_decide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    params = load_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)

    def key(code: str, device: str = "cpu", **changes: object) -> str:
        monkeypatch.setattr(lineage, "code_sha256", {"stages.control": code}.__getitem__)
        stage = Stage("control", params.model_copy(update=changes))
        stage.environment |= {"device": device}
        return stage.checkpoints("student").path.name

    other = params.student.model_copy(update={"steps": 7})
    keys = [key("one"), key("two"), key("one", seed=7), key("one", student=other), key("one", device="cuda")]
    assert len(set(keys)) == 5
    assert key("one", label=params.label.model_copy(update={"views": 9})) == keys[0]


DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OUTS = sorted(out for name in STAGES for out in DVC[name]["outs"] + DVC[name].get("metrics", []))


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the pipeline leaves, as folders with a file."""
    for out in OUTS:
        (tmp_path / out).mkdir(parents=True)
        (tmp_path / out / "part").touch()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_what_dvc_runs_it_again_for_and_nothing_else(name: str):
    stage = Stage(name, load_params(ROOT / "params.yaml"))
    for out in OUTS:
        relative = out.removeprefix("artifacts/")
        if out in (*DVC[name]["deps"], *DVC[name].get("meta", {}).get("reads", [])):
            assert stage.read(relative) == Path(out)
            assert stage.read(f"{relative}/part") == Path(out, "part")
        else:
            with pytest.raises(UserError, match=f"{name} must not read {out}: it is not among .* deps in dvc.yaml"):
                stage.read(relative)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("name", [name for name in STAGES if name != "evaluate"])
@pytest.mark.parametrize("way", ["ingest/shards/test", "ingest/shards/train/../test/part", "ingest/shards/./test"])
def test_no_stage_but_evaluate_can_open_the_test_split(name: str, way: str):
    with pytest.raises(UserError, match="must not read artifacts/ingest/shards/test"):
        Stage(name, load_params(ROOT / "params.yaml")).read(way)
    assert Stage("evaluate", load_params(ROOT / "params.yaml")).read(way).exists()


STOPPED = """
import os, signal
from reflux.components.core.errors import UserError
from reflux.components.core.runtime import stage

def body(_):
    raise UserError("its batch can't be shared.")

def stopped(sentence):
    os.kill(os.getpid(), signal.SIGTERM)

stage._report = stopped
stage.run("control", body)
"""


def test_a_stop_while_an_error_is_reported_is_no_traceback(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / PACKAGE)}
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


STOPPED_IN_AN_IMPORT = """
import os, signal
from reflux.components.core.runtime import stage

def body(_):
    exec("os.kill(os.getpid(), signal.SIGTERM)\\nsignal.pause()")  # as the import of a named tuple runs code

stage.run("control", body)
"""


def test_a_stop_in_an_import_has_its_exit_code(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "stopped.py").write_text(STOPPED_IN_AN_IMPORT)
    assert subprocess.run([sys.executable, "-m", "stopped"], cwd=tmp_path, check=False).returncode == 130


STOPPED_IN_A_DESTRUCTOR = """
import os, signal, sys, time
from reflux.components.core.runtime import stage

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def body(_):
    Dropped()
    print("went on", flush=True)
    try:
        time.sleep(60)
    finally:
        time.sleep(1.2)  # twice as long as a stop waits before it is raised again
        print("cleaned up", flush=True)

stage.run("control", body)
"""


def test_a_stop_that_python_drops_is_raised_again_and_lets_clean_up(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / PACKAGE)}
    command = [sys.executable, "-c", STOPPED_IN_A_DESTRUCTOR]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout) == (130, "went on\ncleaned up\n")
