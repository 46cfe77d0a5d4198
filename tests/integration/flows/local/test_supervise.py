"""Whatever ends the flow ends its whole process tree: real processes, real signals."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reflux.flows.local.supervised import output_of, supervised
from tests.trees import LEAVES, TREE, grown, living, until

pytestmark = pytest.mark.slow

FLOW = """
import signal, sys
for number in (signal.SIGINT, signal.SIGHUP):  # a test run in the background ignores them, and hands that down
    signal.signal(number, signal.SIG_DFL)
from reflux.flows.local.supervised import supervised
process = supervised([sys.executable, sys.argv[1], sys.argv[2], sys.argv[3], "2"], {}, grace_s=1.0)
sys.exit(process.wait())
"""


@pytest.fixture
def tree(tmp_path: Path) -> str:
    path = tmp_path / "tree.py"
    path.write_text(TREE)
    return str(path)


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
    flow.wait(timeout=120)
    assert until(lambda: not living(marker), 10), [p.cmdline() for p in living(marker)]


def test_what_the_command_leaves_behind_ends_with_it(tree, marker):
    grown_up = f"[ $(ls {marker}.* | wc -l) -ge {LEAVES} ]"
    script = f"{sys.executable} {tree} {marker} meek 2 & until {grown_up}; do sleep 0.1; done; exit 7"
    process = supervised(["sh", "-c", script], {}, grace_s=5.0)
    assert process.wait(timeout=120) == 7
    assert grown(marker)
    assert not living(marker)


def test_notes_of_a_command_are_printed_at_once_and_all_lines_are_its_output(tmp_path, capsys):
    go_on = tmp_path / "go-on"
    script = f"echo Note: first; echo second >&2; until [ -e {go_on} ]; do sleep 0.05; done; echo; echo third; exit 3"
    process = supervised(["sh", "-c", script], {}, stdout=subprocess.PIPE)
    with ThreadPoolExecutor() as pool:
        output = pool.submit(output_of, process)
        assert until(lambda: capsys.readouterr().out == "Note: first\n")
        go_on.touch()
        assert output.result() == (3, ["Note: first", "second", "third"])
    assert capsys.readouterr().out == ""


def test_stopping_a_stubborn_tree_takes_the_grace_time_and_not_more(tree, marker):
    process = supervised([sys.executable, tree, marker, "stubborn", "2"], {}, grace_s=1.0)
    assert until(lambda: grown(marker))
    began = time.monotonic()
    process.terminate()
    assert process.wait(timeout=120) == 128 + signal.SIGKILL
    assert 1.0 <= time.monotonic() - began < 30
    assert not living(marker)


def test_a_killed_command_reports_its_signal():
    process = supervised(["sh", "-c", "kill -9 $$"], {}, grace_s=1.0)
    assert process.wait(timeout=120) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_is_asked_to_end_by_its_own_signal(number):
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {2, 15}); print('ready')"
    script = f"{blocked}; print(int(signal.sigwait({{2, 15}})))"
    process = supervised(
        [sys.executable, "-u", "-c", script], {}, stdout=subprocess.PIPE, grace_s=60.0, asked_by=number
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert output.strip() == str(int(number))


def test_a_command_that_does_not_exist_is_an_error_not_a_hang(capfd):
    process = supervised(["no-such-command-anywhere"], {}, stdout=subprocess.PIPE, grace_s=1.0)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 127
    assert "cannot start no-such-command-anywhere" in output


def test_a_supervisor_whose_parent_is_gone_starts_nothing(tmp_path):
    supervisor = Path(__file__).parents[4] / "flows" / "local" / "supervise.py"
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, "-I", "-S", str(supervisor), str(gone.pid), "1", "2", "touch", str(tmp_path / "started")]
    assert subprocess.run(command, check=False).returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "started").exists()


def test_a_process_is_refused_in_a_thread_that_may_end_before_it():
    with ThreadPoolExecutor() as pool:
        refused = pool.submit(supervised, ["true"], {})
    with pytest.raises(RuntimeError, match="main thread"):
        refused.result()
