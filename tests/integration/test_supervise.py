"""Whatever ends the flow ends the stage's whole process tree: real processes, real signals."""

import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from flows.dvc.stages import Runner, unchanged
from flows.local.supervised import supervised
from flows.outcome import StageFailed, StageOutcome

TREE = """
import os, signal, subprocess, sys, time
marker, stubborn, depth = sys.argv[1], sys.argv[2] == "stubborn", int(sys.argv[3])
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if depth:
    again = [sys.executable, __file__, marker, sys.argv[2], str(depth - 1)]
    subprocess.Popen(again)
    subprocess.Popen(again, start_new_session=True)
    if os.fork() == 0:  # a daemon: its parent ends, so it is orphaned at once
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, again)
        os._exit(0)
else:
    open(f"{marker}.{os.getpid()}", "w").close()
time.sleep(600)
"""
LEAVES = 9  # depth 2, three branches each
FLOW = """
import signal, sys
for number in (signal.SIGINT, signal.SIGHUP):  # a test run in the background ignores them, and hands that down
    signal.signal(number, signal.SIG_DFL)
from flows.local.supervised import supervised
process = supervised([sys.executable, sys.argv[1], sys.argv[2], sys.argv[3], "2"], {}, grace_s=1.0)
sys.exit(process.wait())
"""


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    marker = str(tmp_path / uuid.uuid4().hex)
    yield marker
    for process in living(marker):
        process.kill()


@pytest.fixture
def tree(tmp_path: Path) -> str:
    path = tmp_path / "tree.py"
    path.write_text(TREE)
    return str(path)


def living(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and marker in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def grown(marker: str) -> bool:
    return len(list(Path(marker).parent.glob(f"{Path(marker).name}.*"))) == LEAVES


@pytest.mark.parametrize(
    ("number", "stubborn"),
    [
        (signal.SIGKILL, "meek"),
        (signal.SIGKILL, "stubborn"),
        (signal.SIGTERM, "stubborn"),
        (signal.SIGINT, "meek"),
        (signal.SIGHUP, "meek"),
    ],
)
def test_no_orphan_outlives_the_flow(tree, marker, number, stubborn):
    flow = subprocess.Popen([sys.executable, "-c", FLOW, tree, marker, stubborn], stderr=subprocess.DEVNULL)
    assert until(lambda: grown(marker))
    flow.send_signal(number)
    flow.wait(timeout=10)
    assert until(lambda: not living(marker), 10), [p.cmdline() for p in living(marker)]


def test_what_the_command_leaves_behind_ends_with_it(tree, marker):
    grown_up = f"[ $(ls {marker}.* | wc -l) -ge {LEAVES} ]"
    script = f"{sys.executable} {tree} {marker} meek 2 & until {grown_up}; do sleep 0.1; done; exit 7"
    process = supervised(["sh", "-c", script], {}, grace_s=5.0)
    assert process.wait(timeout=30) == 7
    assert grown(marker)
    assert not living(marker)


def test_stopping_a_stubborn_tree_takes_the_grace_time_and_not_more(tree, marker):
    process = supervised([sys.executable, tree, marker, "stubborn", "2"], {}, grace_s=1.0)
    assert until(lambda: grown(marker))
    began = time.monotonic()
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGKILL
    assert 1.0 <= time.monotonic() - began < 10
    assert not living(marker)


def test_a_killed_command_reports_its_signal():
    process = supervised(["sh", "-c", "kill -9 $$"], {}, grace_s=1.0)
    assert process.wait(timeout=10) == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_an_error_not_a_hang(capfd):
    process = supervised(["no-such-command-anywhere"], {}, stdout=subprocess.PIPE, grace_s=1.0)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 127
    assert "cannot start no-such-command-anywhere" in output


def test_a_supervisor_whose_parent_is_gone_starts_nothing(tmp_path):
    supervisor = Path(__file__).parents[2] / "flows" / "local" / "supervise.py"
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, "-I", "-S", str(supervisor), str(gone.pid), "1", "touch", str(tmp_path / "started")]
    assert subprocess.run(command, check=False).returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "started").exists()


# Stages, by a real DVC.

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
    from flows.dvc.checkout import prepare_dvc

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
    Path(".dvc/tmp").mkdir()
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
        "from flows.dvc.stages import Runner\n"
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
    monkeypatch.setattr("flows.dvc.stages.usable_cores", lambda: 8)
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


def test_a_stage_is_refused_in_a_thread_that_may_end_before_it(project):
    with ThreadPoolExecutor() as pool:
        refused = pool.submit(supervised, ["true"], {})
    with pytest.raises(RuntimeError, match="main thread"):
        refused.result()
