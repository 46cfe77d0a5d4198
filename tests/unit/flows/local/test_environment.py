"""The folder that outlives a clone, turns of several pipelines, and the command as its user can type it."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from reflux.flows.local.environment import homes, keep_home, only_run, reflux_command
from tests.workspaces import until

RUN = """
import sys
from pathlib import Path
from reflux.flows.local.environment import keep_home
keep_home("shapes", f"run of {sys.argv[1]}")
keep_home("shapes", "no other run")
with Path(".reflux/seen").open("a") as file:
    file.write(f"{sys.argv[1]}\\n")
print("at work", flush=True)
sys.stdin.read()
"""


def in_clone(folder: Path) -> "subprocess.Popen[str]":
    """Start a run that has its home, and works until its input ends."""
    folder.mkdir()
    command = [sys.executable, "-c", RUN, folder.name]
    run = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "at work\n"
    return run


def test_a_clone_keeps_its_home_where_the_next_one_finds_it_and_no_other_that_runs_has_it(tmp_path, monkeypatch):
    """Two Jobs of a Kubernetes pool: each would take the other's journals for those of a dead run."""
    kept = tmp_path / "kept"
    monkeypatch.setenv("REFLUX_HOME", str(kept))
    first = in_clone(tmp_path / "first")
    assert in_clone(tmp_path / "beside").communicate() == ("", None)
    first.kill()
    first.wait()
    assert in_clone(tmp_path / "second").communicate() == ("", None)
    assert (kept / "shapes" / "seen").read_text() == "first\nsecond\n"
    assert (kept / "shapes" / "flow-run").read_text() == "run of second"
    assert (kept / "shapes.2" / "seen").read_text() == "beside\n"
    (kept / "shapes-3").mkdir()  # another project's
    assert homes("shapes") == [kept / "shapes", kept / "shapes.2"]


def test_a_checkout_that_has_a_home_keeps_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".reflux").mkdir()
    monkeypatch.setenv("REFLUX_HOME", str(tmp_path / "kept"))
    keep_home("shapes", "a run")
    assert not Path(".reflux").is_symlink()
    monkeypatch.delenv("REFLUX_HOME")
    Path(".reflux").rmdir()
    keep_home("shapes", "a run")
    assert not Path(".reflux").exists()


@pytest.mark.parametrize(
    ("path", "command"),
    [("project/.venv/bin", "reflux"), ("", ".venv/bin/reflux"), ("other/bin", ".venv/bin/reflux")],
)
def test_the_command_works_as_typed(tmp_path, monkeypatch, path, command):
    """By name where PATH has this one, else by path."""
    for folder in ("project/.venv/bin", "other/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "reflux").touch(mode=0o755)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "project/.venv/bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path / path) if path else "")
    assert reflux_command() == command


@pytest.mark.parametrize("activated", [True, False])
def test_make_calls_the_command_by_its_name_and_says_how_to_do_so_once(tmp_path, activated):
    shutil.copy(Path(__file__).parents[4] / "Makefile", tmp_path)
    made = [tmp_path / name for name in ("pyproject.toml", "constraints.txt", ".venv/bin/python", ".venv/.dev")]
    command = tmp_path / ".venv/bin/reflux"
    command.parent.mkdir(parents=True)
    for file in (*made, tmp_path / ".venv/.run"):
        file.touch()
    command.write_text('#!/bin/sh\necho "$(command -v reflux) $*"')
    command.chmod(0o755)
    path = f"{command.parent}:/usr/bin:/bin" if activated else "/usr/bin:/bin"
    hint = "" if activated else "\nOnce in each shell, to type reflux:  . .venv/bin/activate\n"
    for arguments, printed in (["run", "ARGS=-S seed=1"], f"{command} run -S seed=1\n"), (["setup"], ""):
        done = subprocess.run(
            ["make", *arguments], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True
        )
        assert done.stdout == printed + hint


def test_outside_its_project_the_command_has_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    assert reflux_command() == f"{tmp_path}/bin/python -m reflux.flows.cli"
    (tmp_path / "bin/reflux").touch(mode=0o755)
    assert reflux_command() == f"{tmp_path}/bin/reflux"


def test_a_run_waits_until_that_of_another_pipeline_has_ended(tmp_path, monkeypatch, capsys):
    for name in (".dvc", ".reflux", "pipelines/pets"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "pipelines/pets")

    def run() -> bool:
        with only_run():
            return True

    with ThreadPoolExecutor(1) as threads:
        with FileLock(tmp_path / ".reflux/pipelines.lock"):
            waiting = threads.submit(run)
            until(lambda: "Waiting until the run of another pipeline" in capsys.readouterr().out)
            assert not waiting.done()
        assert waiting.result(300)
