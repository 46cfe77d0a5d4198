"""Where things are on this machine: what is switched off, and the embedded defaults of DVC, MLflow and Prefect."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from components.core.artifacts import mendable
from components.core.errors import UserError

HOME = Path(".reflux")
RUN_LOG = HOME / "run.log"

# No tool phones home, and DVC asks no server whether a newer version exists.
QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

_SECONDS_TO_WRITE_A_LOCK = 0.5
_DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n    autostage = false\n"


def embed_mlflow() -> str:
    """Point MLflow at the SQLite file of this checkout, unless the user has named a server; returns the URI."""
    default = f"sqlite:///{Path('mlflow.db').resolve()}"
    return os.environ.setdefault("MLFLOW_TRACKING_URI", default)


def keep_home(project: str, flow_run_id: str) -> None:
    """In a worker's clone, have ``.reflux`` outside of it, in ``$REFLUX_HOME/<project>``, where it outlives the clone.

    A run that goes on where a dead one was needs its checkpoint; metrics that wait for MLflow, the stored soft labels
    and the data's history are worth keeping as well. A worker takes one run at a time, and has this folder to itself.

    Args:
        project: ``project.name``.
        flow_run_id: the present run, which a worker started anew looks up there: it may have died with the old one.

    Raises:
        UserError: the folder can't be made.
    """
    kept = os.environ.get("REFLUX_HOME")
    if not kept or HOME.exists():
        return
    folder = Path(kept).resolve() / re.sub(r"[^\w-]", "_", project)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        HOME.unlink(missing_ok=True)  # a link that leads nowhere
        HOME.symlink_to(folder)
        (HOME / "flow-run").write_text(flow_run_id, encoding="utf-8")
    except OSError as error:
        raise mendable(error, folder) from error


def prepare_dvc() -> None:
    """Make DVC work in this folder, under git or not, and not wait for minutes on an S3 that is away.

    Raises:
        UserError: the folder is not writable.
    """
    # By themselves its S3 clients try each request of a push again and again; whoever pushes tries the whole again.
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    config, local = Path(".dvc/config"), Path(".dvc/config.local")
    try:
        if not config.is_file():
            config.parent.mkdir(exist_ok=True)
            config.write_text(_DVC_CONFIG, encoding="utf-8")
            (config.parent / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
        without_git = local.is_file() and "no_scm" in local.read_text(encoding="utf-8")
        if without_git == in_git():
            dvc = [sys.executable, "-m", "dvc", "config", "--local", "core.no_scm"]
            value = ["--unset"] if without_git else ["true"]
            subprocess.run([*dvc, *value], check=True, env={**os.environ, **QUIET}, stdout=subprocess.DEVNULL)
    except OSError as error:
        raise mendable(error, config) from error


def mend_dvc_lock() -> None:
    """Remove DVC's table of running stages when a kill -9 cut it short; DVC itself refuses to work beside it."""
    table = Path(".dvc/tmp/rwlock")
    for _ in range(2):  # the second look is for one that another DVC is writing just now
        try:
            json.loads(table.read_bytes())
            return
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(_SECONDS_TO_WRITE_A_LOCK)
    table.unlink(missing_ok=True)


def in_git() -> bool:
    """Whether this folder or one above it is a git checkout, as DVC looks for it."""
    here = Path.cwd()
    return any((folder / ".git").exists() for folder in (here, *here.parents))


@contextmanager
def only_run() -> Iterator[None]:
    """Keep a second pipeline run out of this checkout.

    Raises:
        UserError: another run is at work.
    """
    try:
        HOME.mkdir(exist_ok=True)
        lock = FileLock(HOME / "run.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            "Another run is at work in this checkout: wait until it ends, or stop it; its log is .reflux/run.log."
        ) from None
    except OSError as error:
        raise mendable(error, HOME / "run.lock") from error
    try:
        yield
    finally:
        lock.release()
