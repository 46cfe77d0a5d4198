"""``reflux ui``: MLflow's web UI on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from components.core.errors import UserError
from flows.environment import HOME, embed_mlflow
from flows.server import answers, is_free, stop
from flows.stages import supervised

_SECONDS_TO_START = 120.0
_SECONDS_BETWEEN_LOOKS = 0.2
_GRACE_S = 5.0


def serve(port: int) -> int:
    """Serve the UI until stopped; a remote MLflow has its own, whose address is printed.

    Returns:
        The exit code: 0, also when stopped by Ctrl-C.

    Raises:
        UserError: the port is taken, or the server did not start.
    """
    uri = embed_mlflow()
    if uri.startswith(("http://", "https://")):
        print(f"MLFLOW_TRACKING_URI names a server, which has its own UI: {uri}")
        return 0
    address = f"http://127.0.0.1:{port}"
    if not is_free(port):
        raise UserError(f"Port {port} is taken: choose one with `reflux ui --port {port + 1}`.")
    HOME.mkdir(exist_ok=True)
    log_path = HOME / "ui.log"
    signal.signal(signal.SIGTERM, _interrupt)
    with log_path.open("w", encoding="utf-8") as log:
        process = supervised(_command(uri, port), _settings(), stdout=log.fileno(), grace_s=_GRACE_S)
    try:
        _wait(process, address, log_path)
        print(f"MLflow is at {address} (Ctrl-C stops it).", flush=True)
        code = process.wait()
        raise UserError(f"MLflow's server ended with code {code}: {log_path} says why.")
    except KeyboardInterrupt:
        return 0
    finally:
        stop(process)


def _command(uri: str, port: int) -> list[str]:
    artifacts = os.environ.get("MLFLOW_ARTIFACT_ROOT") or Path("mlartifacts").resolve().as_uri()
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [*server, "--backend-store-uri", uri, "--default-artifact-root", artifacts]


def _settings() -> dict[str, str]:
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _wait(process: "subprocess.Popen[str]", address: str, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not answers(f"{address}/health"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"MLflow's server did not start: {log} says why.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
