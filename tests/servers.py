"""Real servers for the tests: MLflow, and the Postgres below it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from reflux.flows.local.prefect_server import free_port

NOBODY = 65534  # Postgres refuses to run as root


@dataclass
class MlflowServer:
    """A running MLflow server.

    Attributes:
        uri: where it answers.
        process: its process group's leader.
    """

    uri: str
    process: "subprocess.Popen[bytes]"

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)


@contextmanager
def mlflow_server(
    folder: Path, database: str, port: int | None = None, arguments: Sequence[str] = (), **variables: str
) -> Iterator[MlflowServer]:
    """A real MLflow server that proxies its artifacts, with further arguments and environment variables."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", f"{folder}/store", *arguments]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | quiet | {"PATH": path} | variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = MlflowServer(f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                requests.get(f"{server.uri}/health", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                assert time.monotonic() < deadline, (folder / "server.log").read_text()
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield server
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it
            server.signal(signal.SIGKILL)
        process.wait()


@contextmanager
def postgres() -> Iterator[str]:
    """A real Postgres; yields its database's URI."""
    with cluster("mlflow", "trust") as (_, port):
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"


@contextmanager
def cluster(superuser: str, host_auth: str) -> Iterator[tuple[Path, int]]:
    """A real Postgres; yields the folder of its socket, which it trusts, and its port on 127.0.0.1.

    As root it runs as nobody, in a folder that nobody may enter.
    """
    port, as_nobody = free_port(), []
    with tempfile.TemporaryDirectory(prefix="reflux-postgres-") as folder:
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

        def run(*command: str) -> None:
            done = subprocess.run([*as_nobody, *command], cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        auth = ["--auth-local=trust", f"--auth-host={host_auth}"]
        run("initdb", "-D", f"{folder}/data", "-U", superuser, *auth, "--no-sync")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=100"
        run("pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield Path(folder), port
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")


def has_postgres() -> bool:
    """Tell whether this machine has Postgres and a Python client of it."""
    from importlib.util import find_spec

    return bool(shutil.which("initdb") and shutil.which("pg_ctl") and find_spec("psycopg2"))
