"""Stages by a real DVC: what runs, what a failed one says, and that none outlives the flow."""

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from reflux.flows.outcome import StageFailed, StageOutcome
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.stages import Runner, unchanged
from tests.trees import TREE, grown, living, until

pytestmark = pytest.mark.slow

PIPELINE = """
stages:
  copy:
    cmd: python say.py && cp in.txt out.txt
    deps: [in.txt]
    outs: [out.txt]
  bad:
    cmd: python bad.py 2
    outs: [bad.txt]
  bug:
    cmd: python bad.py 1
    outs: [bug.txt]
  shot:
    cmd: kill -9 $$
    outs: [shot.txt]
  long:
    cmd: python tree.py MARKER meek 2
    outs: [long.txt]
  threads:
    cmd: echo "threads=${REFLUX_THREADS:-all}" && sleep 1 && touch threads.txt
    outs: [threads.txt]
"""
SAY = """
import json, os, sys
for i in range(3000):
    event = {"label": "x", "unit": "images", "done": i, "total": 3000, "rate": 1.0}
    sys.stdout.write("\\x1e" + json.dumps(event) + "\\n")
    sys.stdout.flush()
    print("noise " + "z" * 200, file=sys.stderr)
print("Note: a\\x1b[2J.png is empty")
print("tracking:", os.environ["MLFLOW_TRACKING_URI"])
"""
BAD = """
import sys
print("Traceback: somewhere")
user = sys.argv[1] == "2"
print("Error: 3 images have no label:\\n- a.png\\n- b.png" if user else "ValueError: a bug", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


class Ears:
    def __init__(self):
        self.events, self.lines, self.executed = [], [], []

    def event(self, stage, event):
        self.events.append((stage, event))

    def line(self, stage, text):
        self.lines.append((stage, text))

    def executing(self, stage):
        self.executed.append(stage)


@pytest.fixture
def project(tmp_path, monkeypatch, marker) -> Path:
    monkeypatch.chdir(tmp_path)
    prepare_dvc()
    Path("dvc.yaml").write_text(PIPELINE.replace("MARKER", marker).replace("${REFLUX", "\\${REFLUX"))
    Path("in.txt").write_text("one")
    for name, text in {"say.py": SAY, "bad.py": BAD, "tree.py": TREE}.items():
        Path(name).write_text(textwrap.dedent(text))
    return tmp_path


def test_every_event_and_line_arrives_and_dvc_decides_what_runs(project):
    ears = Ears()
    with Runner(ears, {"MLFLOW_TRACKING_URI": "sqlite:///x.db"}) as runner:
        assert runner.run("copy") is StageOutcome.RAN
        assert [event["done"] for _, event in ears.events] == list(range(3000))
        assert sum(text.startswith("noise") for _, text in ears.lines) == 3000
        assert ("copy", "tracking: sqlite:///x.db") in ears.lines
        assert ("copy", r"Note: a\x1b[2J.png is empty") in ears.lines
        assert not any("lock file" in text or text.startswith(">") for _, text in ears.lines)
        assert runner.run("copy") is StageOutcome.CACHED
        Path("in.txt").write_text("two")
        assert runner.run("copy") is StageOutcome.RAN
        Path("in.txt").write_text("one")
        assert runner.run("copy") is StageOutcome.CACHED
        assert Path("out.txt").read_text() == "one"
    assert ears.executed == ["copy", "copy"]


def test_a_forced_stage_runs_where_dvc_sees_no_change(project):
    with Runner(Ears(), {"MLFLOW_TRACKING_URI": "none"}) as runner:
        runner.run("copy")
        assert runner.run("copy") is StageOutcome.CACHED
    with Runner(Ears(), {"MLFLOW_TRACKING_URI": "none"}, forced={"copy"}) as runner:
        assert runner.run("copy") is StageOutcome.RAN


def test_a_failed_stage_says_why_in_its_own_words(project):
    with Runner(Ears(), {}) as runner:
        with pytest.raises(StageFailed) as bad:
            runner.run("bad")
        assert bad.value.sentence == "3 images have no label:\n- a.png\n- b.png"
        assert bad.value.user_error
        assert not bad.value.transient
        with pytest.raises(StageFailed, match="bug: ValueError: a bug") as bug:
            runner.run("bug")
        assert not bug.value.user_error
        assert not bug.value.transient
        with pytest.raises(StageFailed, match="killed by SIGKILL") as shot:
            runner.run("shot")
        assert shot.value.transient
        with pytest.raises(StageFailed, match=r"nowhere.*not found"):
            runner.run("nowhere")


def test_leaving_the_runner_for_any_reason_ends_what_runs(project, marker):
    with pytest.raises(ZeroDivisionError), Runner(Ears(), {}) as runner:
        runner.start("long")
        assert until(lambda: grown(marker))
        raise ZeroDivisionError
    assert not living(marker)
    with Runner(Ears(), {"MLFLOW_TRACKING_URI": "none"}) as runner:
        assert runner.run("copy") is StageOutcome.RAN  # whatever state DVC left its locks in


def test_a_lock_table_cut_short_by_a_kill_does_not_stop_the_next_run(project):
    Path(".dvc/tmp").mkdir(exist_ok=True)
    Path(".dvc/tmp/rwlock").write_text('{"/a": {"wri')
    with Runner(Ears(), {"MLFLOW_TRACKING_URI": "none"}) as runner:
        assert runner.run("copy") is StageOutcome.RAN
        Path(".dvc/tmp/rwlock").write_text("")
        assert unchanged()


def test_a_killed_supervisor_takes_its_stage_with_it_and_may_be_tried_again(project, marker):
    with Runner(Ears(), {}) as runner:
        runner.start("long")
        assert until(lambda: grown(marker))
        supervisor = next(p for p in psutil.Process().children() if p.cmdline()[-1:] == ["long"])
        supervisor.kill()
        with pytest.raises(StageFailed) as failed:
            runner.run("long")
    assert failed.value.transient
    assert "SIGKILL" in failed.value.sentence
    assert not living(marker)


def test_killing_the_flow_with_dvc_between_leaves_no_orphan(project, marker):
    flow = (
        "from reflux.flows.repo.stages import Runner\n"
        "class Deaf:\n"
        "    event = line = executing = lambda *a: None\n"
        "with Runner(Deaf(), {}) as runner: runner.run('long')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", flow])
    assert until(lambda: grown(marker))
    process.kill()
    process.wait()
    assert until(lambda: not living(marker), 10)
    # The lock of the killed DVC does not stand in the way of the next run.
    with Runner(Ears(), {"MLFLOW_TRACKING_URI": "none"}) as runner:
        assert runner.run("copy") is StageOutcome.RAN


def test_stages_side_by_side_share_the_cores(project, monkeypatch):
    monkeypatch.setattr("reflux.flows.repo.stages.usable_cores", lambda: 8)
    monkeypatch.delenv("REFLUX_THREADS", raising=False)
    ears = Ears()
    with Runner(ears, {"MLFLOW_TRACKING_URI": "none"}) as runner:
        runner.start("threads", shares_cores=True)
        runner.run("copy")
        assert runner.run("threads") is StageOutcome.RAN
        Path("threads.txt").unlink()
        Path("dvc.lock").unlink()
        subprocess.run(["rm", "-r", ".dvc/cache/runs"], check=True)
        assert runner.run("threads") is StageOutcome.RAN
    assert [text for _, text in ears.lines if text.startswith("threads=")] == ["threads=4", "threads=all"]
