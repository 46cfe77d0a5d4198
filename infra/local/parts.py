"""The parts of the local stack: how each is started, and how to tell that it answers."""

import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.local import accounts, databases, s3
from infra.local.settings import INFRA, USER, Stack
from reflux.components.core.errors import UserError
from reflux.flows.local.prefect_server import is_up


def _nothing(_stack: Stack) -> None:
    pass


@dataclass(frozen=True)
class Part:
    """One supervised process tree of the stack.

    Attributes:
        name: what ``status`` calls it, and its log.
        command: the program and its arguments; no secret is among them.
        environment: its variables; it gets no others.
        is_up: tells whether it works now.
        at: its address, for a person.
        prepare: makes what must exist before it starts.
        complete: makes what it needs once it answers; safe to repeat.
        grace_s: seconds that it has to end.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    is_up: Callable[[], bool]
    at: str
    prepare: Callable[[Stack], None] = _nothing
    complete: Callable[[Stack], None] = _nothing
    grace_s: float = 10.0


def parts(stack: Stack) -> list[Part]:
    """All parts, in the order in which they start."""
    pools = (stack.settings["REFLUX_CPU_POOL"], stack.settings["REFLUX_GPU_POOL"])
    return [_postgres(stack), _s3(stack), _mlflow(stack), _prefect(stack), *(_worker(stack, pool) for pool in pools)]


def busy(stack: Stack) -> str | None:
    """An error message about the first port that is taken, or None."""
    inner = s3.inner_ports(stack.port("S3"))
    wanted = [(part, stack.host, stack.port(part)) for part in ("S3", "MLFLOW", "PREFECT")]
    wanted += [("POSTGRES", host, stack.port("POSTGRES")) for host in databases.hosts(stack)]
    wanted += [("S3", databases.HOST, port) for port in (*inner.http, *inner.grpc)]
    for part, host, port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                return (
                    f"{host}:{port} can't be used ({error.strerror}): stop what listens there, or choose another port: "
                    f"REFLUX_{part}_PORT={stack.port(part) + 1000} infra/local/up."
                )
    return None


def _postgres(stack: Stack) -> Part:
    folder = databases.folder(stack)
    options = ["-D", str(folder / "data"), "-k", str(folder), "-N", stack.settings["REFLUX_POSTGRES_CONNECTIONS"]]
    options += ["-h", ",".join(databases.hosts(stack)), "-p", str(stack.port("POSTGRES"))]
    return Part(
        "postgres",
        [*databases.as_unprivileged(), str(databases.program("postgres")), *options],
        {},
        lambda: databases.is_up(stack),
        f"{databases.HOST}:{stack.port('POSTGRES')}",
        prepare=databases.initialize,
        complete=databases.make_databases,
        grace_s=20.0,
    )


def _s3(stack: Stack) -> Part:
    return Part(
        "s3",
        s3.command(stack),
        {},
        lambda: is_up(f"{stack.url('S3')}/healthz"),
        stack.url("S3"),
        prepare=s3.write_identities,
        complete=s3.make_buckets,
    )


def _mlflow(stack: Stack) -> Part:
    address = ["--host", stack.host, "--port", str(stack.port("MLFLOW"))]
    hosts = {f"{name}:{stack.port('MLFLOW')}" for name in ("localhost", "127.0.0.1", stack.host)}
    return Part(
        "mlflow",
        [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1", *address],
        {
            **stack.plain,
            **databases.login(stack, "mlflow"),
            "MLFLOW_BACKEND_STORE_URI": f"postgresql:///{stack.settings['REFLUX_MLFLOW_DATABASE']}",
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{stack.settings['REFLUX_MLFLOW_BUCKET']}",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(hosts)),
            "MLFLOW_AUTH_CONFIG_PATH": str(INFRA / "mlflow-auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": accounts.ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": stack.secrets["MLFLOW_ADMIN_PASSWORD"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": stack.secrets["MLFLOW_FLASK_SERVER_SECRET_KEY"],
            "MLFLOW_S3_ENDPOINT_URL": stack.url("S3"),
            "AWS_ACCESS_KEY_ID": s3.MLFLOW,
            "AWS_SECRET_ACCESS_KEY": stack.secrets["S3_MLFLOW_SECRET_KEY"],
        },
        lambda: is_up(f"{stack.url('MLFLOW')}/health"),
        stack.url("MLFLOW"),
        complete=_make_account,
    )


def _make_account(stack: Stack) -> None:
    """Make the account of the workers and of whoever loads stack.env."""
    known = accounts.Accounts(stack.url("MLFLOW"), stack.secrets["MLFLOW_ADMIN_PASSWORD"])
    known.make(USER, stack.secrets["MLFLOW_PASSWORD"], promotes=True)


def _prefect(stack: Stack) -> Part:
    address = ["--host", stack.host, "--port", str(stack.port("PREFECT"))]
    login = databases.login(stack, "prefect")
    return Part(
        "prefect",
        [sys.executable, "-m", "prefect", "server", "start", "--log-level", "WARNING", *address],
        {
            **stack.plain,
            "PREFECT_HOME": str(stack.state / "prefect"),
            "PREFECT_API_URL": stack.client["PREFECT_API_URL"],  # where its page finds it
            "PREFECT_SERVER_API_AUTH_STRING": stack.client["PREFECT_API_AUTH_STRING"],
            "PREFECT_API_AUTH_STRING": stack.client["PREFECT_API_AUTH_STRING"],  # its automations call it, too
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{login['PGUSER']}:{login['PGPASSWORD']}"
            f"@{login['PGHOST']}:{login['PGPORT']}/{stack.settings['REFLUX_PREFECT_DATABASE']}",
        },
        lambda: is_up(f"{stack.url('PREFECT')}/api/health"),
        stack.url("PREFECT"),
    )


def _worker(stack: Stack, pool: str) -> Part:
    home = ["--home", str(stack.state / "worker")]
    return Part(
        f"worker-{pool}",
        [sys.executable, str(Path(__file__).with_name("run.py")), "worker", pool, *home],
        stack.client,
        lambda: _is_online(stack, pool),
        f"work pool {pool}",
        grace_s=25.0,  # its runs end their stages in 20 s
    )


def _is_online(stack: Stack, pool: str) -> bool:
    auth = (USER, stack.secrets["PREFECT_PASSWORD"])
    address = f"{stack.client['PREFECT_API_URL']}/work_pools/{pool}/workers/filter"
    try:
        response = httpx.post(address, json={}, auth=auth, timeout=5)
        return any(worker["status"] == "ONLINE" for worker in response.raise_for_status().json())
    except (httpx.HTTPError, ValueError):
        return False


def check_programs() -> None:
    """Check that the programs that the stack starts are installed.

    Raises:
        UserError: one is missing.
    """
    databases.program("initdb")
    s3.program()
    if os.getuid() == 0 and not shutil.which("setpriv"):
        raise UserError("Postgres refuses to run as root and setpriv is missing: run as another user.")
