"""A worker for one of Prefect's pools, on this machine: the stack's own, or a second machine that joins."""

import fcntl
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import NoReturn

import httpx

from reflux.components.core.errors import UserError

_NEEDED = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "REFLUX_DVC_BUCKET")
_ENDED_AS = {"RUNNING": "CRASHED", "PENDING": "CRASHED", "CANCELLING": "CANCELLED"}
_DVC = """[core]
    analytics = false
    check_update = false
    remote = shared
[cache]
    dir = {cache}
['remote "shared"']
    url = s3://{bucket}
"""


def become_worker(pool: str, name: str, home: Path) -> NoReturn:
    """Become a Prefect worker that takes one run at a time.

    Its runs find DVC's remote and this machine's cache, and keep what outlives their clones (REFLUX_HOME). Clones that
    a killed worker left behind are removed.

    Args:
        pool: the work pool.
        name: of the worker, unique on this machine.
        home: the folder of this machine's workers, whose cache they share.

    Raises:
        UserError: the stack's variables are not set, or a worker of this name runs here.
    """
    if missing := [variable for variable in _NEEDED if not os.environ.get(variable)]:
        raise UserError(f"{missing[0]} is not set: load the stack's variables first: set -a; . stack.env; set +a")
    home = home.resolve()
    settings = prepare(name, home)
    mark_ended(Path(settings["REFLUX_HOME"]))
    worker = ["worker", "start", "--pool", pool, "--type", "process", "--limit", "1"]
    name_option = ["--name", f"{name}@{socket.gethostname()}"]
    command = [sys.executable, "-m", "prefect", "--no-prompt", *worker, *name_option]
    os.execve(command[0], command, os.environ | settings)  # noqa: S606 - a list, and no shell


def prepare(name: str, home: Path) -> dict[str, str]:
    """Make a worker's folders, for as long as this process lives; returns the variables that its runs need.

    Raises:
        UserError: a worker of this name runs here.
    """
    own = home / name
    own.mkdir(parents=True, exist_ok=True)
    _only_one(own / "lock", name, home)
    clones = own / "clones"
    shutil.rmtree(clones, ignore_errors=True)
    clones.mkdir()
    dvc = home / "dvc"
    dvc.mkdir(exist_ok=True)
    bucket = os.environ["REFLUX_DVC_BUCKET"]
    (dvc / "config").write_text(_DVC.format(cache=home / "cache", bucket=bucket), encoding="utf-8")
    settings = {"DVC_GLOBAL_CONFIG_DIR": str(dvc), "PREFECT_HOME": str(own / "prefect"), "TMPDIR": str(clones)}
    return settings | {"REFLUX_HOME": str(own / "kept")}


def mark_ended(kept: Path) -> None:
    """Mark the run that died with the last worker of this name as ended in Prefect.

    That worker's tree has ended before its lock was free. Prefect itself notices only after minutes without a
    heartbeat, and lets no other run of the deployment start until then.

    Args:
        kept: where the runs of this worker left their ids.
    """
    api = os.environ["PREFECT_API_URL"]
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    for note in kept.glob("*/flow-run"):
        try:
            run = f"{api}/flow_runs/{note.read_text(encoding='utf-8')}"
            with httpx.Client(auth=(user, password), timeout=15) as server:
                state = server.get(run).raise_for_status().json()["state_type"]
                if state in _ENDED_AS:
                    ended = {"type": _ENDED_AS[state], "message": "Its worker ended, and with it the run."}
                    server.post(f"{run}/set_state", json={"state": ended, "force": True}).raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            print(f"Note: the last run of this worker can't be looked up ({error}).", file=sys.stderr)


def _only_one(lock: Path, name: str, home: Path) -> None:
    """Hold ``lock`` for as long as this process lives, also after it executes another program."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"A worker called {name} runs in {home}: give this one another --name.") from None
    os.set_inheritable(handle, True)
