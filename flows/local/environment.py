"""The environment of this machine: telemetry switched off, ``.reflux``, and MLflow's embedded default."""

import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from reflux.components.core.artifacts import translate_os_error
from reflux.components.core.errors import UserError
from reflux.components.core.project import root
from reflux.components.core.runtime.tracking import refuse_empty_database, without_secrets

HOME = Path(".reflux")
RUN_LOG = HOME / "run.log"
SOFT_LABELS = HOME / "soft-labels"
_LOCK_OF_RUN = "flow-run.lock"  # in the folder that a worker's run keeps
_MLFLOW_SCHEMES = ("http", "https", "postgresql", "mysql", "mssql", "sqlite", "databricks")

_taken: list[FileLock] = []  # those of this process, which its end releases

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


def embed_mlflow() -> str:
    """Point MLflow at the SQLite file of this project, unless the user has named a server; returns the URI.

    Raises:
        UserError: the user has named what is neither a server nor a database, or the database's file is empty.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root() / 'mlflow.db').resolve()}"
    os.environ["MLFLOW_TRACKING_URI"] = uri
    if uri.partition(":")[0].partition("+")[0].lower() not in _MLFLOW_SCHEMES:
        raise UserError(
            f"MLFLOW_TRACKING_URI = {without_secrets(uri)} is no MLflow server or database: set it to http://…, "
            "postgresql://… or sqlite:///…, or unset it to use this project's mlflow.db."
        )
    refuse_empty_database()
    return uri


def keep_home(project: str, flow_run_id: str) -> None:
    """In a worker's clone, link ``.reflux`` to ``$REFLUX_HOME/<project>``, which outlives the clone.

    A run that continues where a dead one stopped needs its checkpoint; metrics that wait for MLflow, the stored soft
    labels and the data's history are worth keeping as well. While it runs, a run has this folder to itself: another,
    such as a second Job of a Kubernetes pool, takes the next, ``$REFLUX_HOME/<project>.2``.

    Args:
        project: ``project.name``.
        flow_run_id: the present run, which a restarted worker looks up there: it may have died with the old one.

    Raises:
        UserError: the folder can't be made.
    """
    kept = os.environ.get("REFLUX_HOME")
    if not kept or HOME.exists():
        return
    folder = Path(kept).resolve() / _folder_name(project)
    try:
        folder = _take(folder)
        HOME.unlink(missing_ok=True)  # a link that leads nowhere
        HOME.symlink_to(folder)
        (HOME / "flow-run").write_text(flow_run_id, encoding="utf-8")
    except OSError as error:
        raise translate_os_error(error, folder) from error


def _take(first: Path) -> Path:
    """Lock the first free folder of those that runs keep, until this process ends; make it if there is none."""
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}.{number}")
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK_OF_RUN)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            _taken.append(lock)
            return folder
    raise AssertionError("unreachable")


def homes(project: str) -> list[Path]:
    """What stands for ``.reflux`` in clones of this machine's workers: below ``$REFLUX_HOME``, as a worker has it.

    The variable may also name the folder of all the machine's workers, as ``infra/local/worker --home`` takes it.
    """
    kept = os.environ.get("REFLUX_HOME")
    name = _folder_name(project)
    patterns = [f"{above}{name}{number}" for above in ("", "*/kept/") for number in ("", ".[0-9]*")]
    return [folder for pattern in patterns for folder in Path(kept).glob(pattern) if folder.is_dir()] if kept else []


@contextmanager
def idle_homes(project: str) -> Iterator[list[Path]]:
    """Those of ``homes`` that no run has, and none can take during the block."""
    with ExitStack() as stack:
        idle = list[Path]()
        for folder in homes(project):
            lock = FileLock(folder / _LOCK_OF_RUN)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                stack.callback(lock.release)
                idle.append(folder)
        yield idle


def _folder_name(project: str) -> str:
    return re.sub(r"[^\w-]", "_", project)


@contextmanager
def only_run() -> Iterator[None]:
    """Keep a second run out of this pipeline, and wait until those of the project's other pipelines have ended.

    On one machine they would share its cores, and measure latencies that a gate then refuses.

    Raises:
        UserError: another run of this pipeline is in progress.
    """
    try:
        HOME.mkdir(exist_ok=True)
        lock = FileLock(HOME / "run.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            "Another `reflux run`, `tune`, `teachers`, `upgrade` or `gc` of this pipeline is in progress in this "
            "folder: wait until it ends, or stop it. A run's log is .reflux/run.log."
        ) from None
    except OSError as error:
        raise translate_os_error(error, HOME / "run.lock") from error
    try:
        with _turn():
            yield
    finally:
        lock.release()


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other pipeline of the project runs on this machine."""
    path = (root() / HOME).resolve() / "pipelines.lock"
    try:
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("Waiting until the run of another pipeline of this project has ended …", flush=True)
            lock.acquire()
    except OSError as error:
        raise translate_os_error(error, path) from error
    try:
        yield
    finally:
        lock.release()


def reflux_command() -> str:
    """The ``reflux`` command as the user can type it: its name, or its path if PATH has none or another one."""
    script = Path(sys.executable).with_name("reflux")
    by_name = shutil.which("reflux")
    if not script.is_file():
        return f"{sys.executable} -m reflux.flows.cli"
    if by_name and Path(by_name).samefile(script):
        return "reflux"
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)
