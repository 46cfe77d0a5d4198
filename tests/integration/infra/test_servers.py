"""``infra/servers``, the scripts that containers, Kubernetes and systemd run, here run by hand on real parts."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from reflux.flows.local.prefect_server import free_port
from tests.servers import cluster, has_postgres
from tests.workspaces import until

pytestmark = pytest.mark.long

INFRA = Path(__file__).parents[3] / "infra"
BIN = Path(sys.executable).parent


def read_env(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


@dataclass(frozen=True)
class Shared:
    """The servers: their variables, secrets included, and their processes."""

    environment: dict[str, str]
    secrets: dict[str, str]
    processes: list["subprocess.Popen[bytes]"]

    def url(self, part: str) -> str:
        return f"http://127.0.0.1:{self.environment[f'REFLUX_{part}_PORT']}"

    @property
    def login(self) -> tuple[str, str]:
        return self.secrets["MLFLOW_TRACKING_USERNAME"], self.secrets["MLFLOW_TRACKING_PASSWORD"]


@contextmanager
def script(name: str, environment: dict[str, str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """One of the scripts, until the block ends; its own folder is all that it writes to."""
    (folder / name).mkdir()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [INFRA / "servers" / name],
            cwd=folder / name,
            env=environment | {"TMPDIR": str(folder / name)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 300
    while True:
        with suppress(requests.RequestException):
            if requests.get(url, timeout=5).status_code == 200:
                return
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Shared]:
    if not has_postgres() or not shutil.which("weed", path=f"{BIN}{os.pathsep}{os.environ['PATH']}"):
        pytest.skip("NO SERVERS: Postgres or SeaweedFS (the extra 'stack') is not here")
    folder = tmp_path_factory.mktemp("servers")
    settings = read_env((INFRA / "settings.env").read_text())
    made = subprocess.run([INFRA / "new-secrets"], capture_output=True, text=True, check=True)
    secrets = read_env(made.stdout)
    with ExitStack() as stack:
        sockets, port = stack.enter_context(cluster("postgres", "scram-sha-256"))
        ports = {f"REFLUX_{part}_PORT": str(free_port()) for part in ("MLFLOW", "PREFECT")}
        ports["REFLUX_S3_PORT"] = str(next(low for _ in range(1000) if (low := free_port()) < 50_000))  # it adds 10,000
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        plain = {"HOME": str(folder), "PATH": path, "PREFECT_HOME": str(folder), "REFLUX_S3_FOLDER": str(folder / "s3")}
        environment = plain | settings | secrets | ports | {"REFLUX_POSTGRES_PORT": str(port)}
        subprocess.run(
            [INFRA / "servers/postgres-roles"],
            env=environment | {"PGHOST": str(sockets), "PGPORT": str(port)},
            check=True,
        )
        processes = [stack.enter_context(script(name, environment, folder)) for name in ("s3", "mlflow", "prefect")]
        running = Shared(environment, secrets, processes)
        wait_for(f"{running.url('S3')}/healthz", folder / "s3.log")
        wait_for(f"{running.url('MLFLOW')}/health", folder / "mlflow.log")
        current = f"{running.url('MLFLOW')}/api/2.0/mlflow/users/current"
        until(lambda: requests.get(current, auth=running.login, timeout=120).status_code == 200)
        wait_for(f"{running.url('PREFECT')}/api/health", folder / "prefect.log")
        yield running


def test_mlflow_asks_for_a_login_and_answers_only_to_its_own_names(shared):
    search = {"max_results": 1}
    address = f"{shared.url('MLFLOW')}/api/2.0/mlflow/experiments/search"
    assert requests.post(address, json=search, timeout=120).status_code == 401
    assert requests.post(address, json=search, auth=shared.login, timeout=120).status_code == 200
    create, one = f"{shared.url('MLFLOW')}/api/2.0/mlflow/users/create", {"username": "mallory", "password": "p" * 12}
    assert requests.post(create, json=one, auth=shared.login, timeout=120).status_code == 403
    admin = ("reflux-admin", shared.secrets["MLFLOW_ADMIN_PASSWORD"])
    assert requests.post(create, json=one, auth=admin, timeout=120).status_code == 200
    strange = {"Host": "evil.example.org"}
    assert requests.post(address, json=search, auth=shared.login, headers=strange, timeout=120).status_code == 403


def test_artifacts_go_through_mlflow_to_s3_and_users_are_in_postgres(shared, tmp_path, monkeypatch):
    import boto3
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared.url("MLFLOW"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", shared.login[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", shared.login[1])
    client = MlflowClient(shared.url("MLFLOW"))
    run = client.create_run(client.create_experiment("clothes")).info
    (tmp_path / "model.txt").write_text("weights")
    client.log_artifact(run.run_id, str(tmp_path / "model.txt"))
    (tmp_path / "back").mkdir()
    back = client.download_artifacts(run.run_id, "model.txt", str(tmp_path / "back"))
    assert Path(back).read_text() == "weights"

    def by(key: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=shared.url("S3"),
            aws_access_key_id=shared.secrets[f"{key}_ACCESS_KEY_ID"],
            aws_secret_access_key=shared.secrets[f"{key}_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    s3, artifacts = by("AWS"), shared.environment["REFLUX_MLFLOW_BUCKET"]
    held = by("MLFLOW_S3").list_objects_v2(Bucket=artifacts)["Contents"]
    assert [item["Key"].rsplit("/", 1)[-1] for item in held] == ["model.txt"]
    s3.put_object(Bucket=shared.environment["REFLUX_DVC_BUCKET"], Key="probe", Body=b"data")
    for refused in (
        lambda: s3.get_object(Bucket=artifacts, Key=held[0]["Key"]),
        lambda: s3.put_object(Bucket=artifacts, Key=held[0]["Key"], Body=b"other weights"),
        lambda: s3.list_objects_v2(Bucket=artifacts),
        lambda: by("MLFLOW_S3").get_object(Bucket=shared.environment["REFLUX_DVC_BUCKET"], Key="probe"),
        lambda: s3.create_bucket(Bucket="another"),
        lambda: s3.put_object(Bucket="another", Key="probe", Body=b"data"),
        lambda: s3.delete_bucket(Bucket=shared.environment["REFLUX_DVC_BUCKET"]),
    ):
        with pytest.raises(s3.exceptions.ClientError) as error:
            refused()
        assert error.value.response["Error"]["Code"] in ("AccessDenied", "NoSuchBucket")
    assert not (Path(shared.environment["HOME"]) / "mlflow" / "basic_auth.db").exists()


def test_prefect_asks_for_a_login_and_knows_its_pools(shared):
    address = f"{shared.url('PREFECT')}/api/work_pools/filter"
    assert requests.post(address, json={}, timeout=120).status_code == 401
    login = tuple(shared.secrets["PREFECT_API_AUTH_STRING"].split(":"))
    assert requests.post(address, json={}, auth=login, timeout=120).json() == []


def test_no_process_shows_a_secret_in_its_arguments(shared):
    secret = [value for key, value in shared.secrets.items() if len(value) > 20]
    lines = []
    for top in shared.processes:
        for process in [psutil.Process(top.pid), *psutil.Process(top.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                lines.append(" ".join(process.cmdline()))
    assert len(lines) >= 3
    assert not [line for line in lines for value in secret if value in line]


def test_the_servers_of_one_database_cannot_open_the_others(shared):
    import psycopg2

    for role, mine, other in (("mlflow", "mlflow_auth", "prefect"), ("prefect", "prefect", "mlflow")):
        known = {"host": "127.0.0.1", "port": shared.environment["REFLUX_POSTGRES_PORT"], "user": role}
        password = shared.secrets[f"{role.upper()}_DB_PASSWORD"]
        psycopg2.connect(dbname=mine, password=password, **known).close()
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            psycopg2.connect(dbname=other, password=password, **known)
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(dbname=mine, password="wrong", **known)
