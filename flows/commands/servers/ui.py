"""``reflux ui`` and ``reflux boards``: the web UIs on this machine, and links to the boards."""

import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

from reflux.components.core.errors import UserError
from reflux.components.core.project import root
from reflux.flows.local.environment import HOME, embed_mlflow
from reflux.flows.local.prefect_server import is_free, is_up
from reflux.flows.local.supervised import stop, supervised

_SECONDS_TO_START = 120.0
_SECONDS_BETWEEN_LOOKS = 0.2
_GRACE_S = 5.0


def serve(port: int, prefect: bool) -> int:
    """Serve MLflow's UI, and Prefect's if requested, until stopped; a remote MLflow has its own.

    Returns:
        The exit code: 0, also when stopped by Ctrl-C.

    Raises:
        UserError: this is no project, a port is in use, or a server did not start.
    """
    from reflux.components.core.params.file import load_params
    from reflux.components.registry import client

    load_params()  # in a wrong folder nothing is left behind
    uri = embed_mlflow()
    remote = uri.startswith(("http://", "https://"))
    if remote and not prefect:
        print(f"MLFLOW_TRACKING_URI is a server, which has its own UI: {client.address()}", flush=True)
        print_boards(client.address())
        return 0
    address = client.address() if remote else f"http://127.0.0.1:{port}"
    signal.signal(signal.SIGTERM, _interrupt)
    HOME.mkdir(exist_ok=True)
    started: list[subprocess.Popen[str]] = []
    try:
        if not remote:
            started.append(_start("MLflow", _mlflow(uri, port), port, f"{address}/health"))
            print(f"MLflow is at {address} (Ctrl-C stops it).")
        if prefect:
            started.append(_start("Prefect", _prefect(port + 1), port + 1, f"http://127.0.0.1:{port + 1}/api/health"))
            print(f"Prefect is at http://127.0.0.1:{port + 1} (Ctrl-C stops it).")
        print_boards(address)
        while all(process.poll() is None for process in started):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        raise UserError(f"A server ended unexpectedly: {HOME}/ui-mlflow.log or ui-prefect.log says why.")
    except KeyboardInterrupt:
        return 0
    finally:
        for process in started:
            stop(process)


def show_boards(port: int) -> None:
    """Print links to the boards on the MLflow server or, without one, on the server that ``reflux ui`` starts.

    Raises:
        UserError: MLflow does not answer.
    """
    from reflux.components.registry import client

    if embed_mlflow().startswith(("http://", "https://")):
        print_boards(client.address())
        return
    if print_boards(f"http://127.0.0.1:{port}"):
        print("These links work while `reflux ui` is running.")


def print_boards(address: str) -> bool:
    """Print links to the boards.

    Args:
        address: of MLflow's page.

    Returns:
        Whether there are any.

    Raises:
        UserError: MLflow does not answer.
    """
    from reflux.components.core.params.file import load_params
    from reflux.components.observe.boards import keep
    from reflux.components.registry import client

    embed_mlflow()
    name = load_params().project.name
    with client.translate_errors():
        experiment = client.connect().get_experiment_by_name(name)
    if experiment is None:
        print(f"There is no run of {name} yet: `reflux run` makes one, with its boards.", flush=True)
        return False
    print("Boards:")
    for board, link, description in keep.links(str(experiment.experiment_id), address):
        print(f"  {board:<18} {link}\n  {'':<18} {description}", flush=True)
    return True


def _start(name: str, command: list[str], port: int, health: str) -> "subprocess.Popen[str]":
    if not is_free(port):
        raise UserError(f"Port {port} is in use: choose another one with `reflux ui --port {port + 10}`.")
    log_path = HOME / f"ui-{name.lower()}.log"
    with log_path.open("w", encoding="utf-8") as log:
        process = supervised(command, _settings(), stdout=log.fileno(), grace_s=_GRACE_S)
    deadline = time.monotonic() + _SECONDS_TO_START
    try:
        while not is_up(health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{name}'s server did not start: {log_path} says why.")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    except BaseException:
        stop(process)
        raise
    return process


def _mlflow(uri: str, port: int) -> list[str]:
    artifacts = os.environ.get("MLFLOW_ARTIFACT_ROOT") or (root() / "mlartifacts").resolve().as_uri()
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [*server, "--backend-store-uri", uri, "--default-artifact-root", artifacts]


def _prefect(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def _settings() -> dict[str, str]:
    """Variables for both servers: no jobs in MLflow; Prefect shows the runs of the embedded server."""
    home = {"PREFECT_HOME": str((HOME / "prefect").resolve()), "PREFECT_API_URL": ""}
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **home}


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
