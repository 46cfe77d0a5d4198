"""Postgres and SeaweedFS below infra/local's supervisor: what their passwords open, and what a kill leaves."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from infra.local import databases, s3
from infra.local.settings import USER, Stack, new_stack
from infra.local.supervisor import records
from reflux.components.advice.tune.storage import open_study
from tests.e2e.stack import folder, ports, until
from tests.servers import has_postgres

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not has_postgres(), reason="NO POSTGRES: install Debian's postgresql"),
]

BOTH = """
import sys
from pathlib import Path
from infra.local.parts import parts
from infra.local.settings import known_stack
from infra.local.supervisor import Supervisor
stack = known_stack(Path(sys.argv[1]))
Supervisor(stack, parts(stack)[:2]).run()
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture(scope="module")
def stack(home, module_environment) -> Stack:
    return new_stack(home / "state")


@pytest.fixture(scope="module")
def module_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ports() | {"REFLUX_TUNE_DATABASE": "tune"}).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def supervisor(stack) -> Iterator["subprocess.Popen[bytes]"]:
    log = stack.state / "log" / "supervisor.log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", BOTH, str(stack.state)], stdout=file, stderr=file)
    try:
        until(lambda: process.poll() is not None or records(stack.state)[1], 120)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(120)


def test_the_workers_key_opens_dvcs_bucket_that_of_mlflow_its_own_and_neither_another(supervisor, stack):
    from botocore.exceptions import ClientError

    admin = s3.client(stack, "admin", stack.secrets["S3_ADMIN_SECRET_KEY"])
    admin.create_bucket(Bucket="payroll")
    for bucket in ("payroll", "reflux-dvc", "reflux-mlflow"):
        admin.put_object(Bucket=bucket, Key="x", Body=b"secret")
    workers = s3.client(stack, USER, stack.secrets["S3_SECRET_KEY"])
    mlflows = s3.client(stack, s3.MLFLOW, stack.secrets["S3_MLFLOW_SECRET_KEY"])
    refused = []
    for shared, bucket, others in ((workers, "reflux-dvc", "reflux-mlflow"), (mlflows, "reflux-mlflow", "reflux-dvc")):
        shared.put_object(Bucket=bucket, Key="a/b", Body=b"mine")
        assert shared.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"mine"
        assert shared.list_objects_v2(Bucket=bucket)["KeyCount"] == 2
        shared.delete_object(Bucket=bucket, Key="a/b")
        for closed in (others, "payroll"):
            refused += [
                partial(shared.get_object, Bucket=closed, Key="x"),
                partial(shared.put_object, Bucket=closed, Key="y", Body=b""),
                partial(shared.delete_object, Bucket=closed, Key="x"),
                partial(shared.copy_object, Bucket=bucket, Key="z", CopySource=f"{closed}/x"),
                partial(shared.list_objects_v2, Bucket=closed),
            ]
        refused += [partial(shared.create_bucket, Bucket="another"), partial(shared.delete_bucket, Bucket=bucket)]
    refused += [
        lambda: s3.client(stack, USER, "wrong").list_objects_v2(Bucket="reflux-dvc"),
        lambda: s3.client(stack, "nobody", "").list_objects_v2(Bucket="reflux-dvc"),
    ]
    for attempt in refused:
        with pytest.raises(ClientError) as error:
            attempt()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert admin.get_object(Bucket="payroll", Key="x")["Body"].read() == b"secret"


def test_a_servers_role_opens_its_own_databases_and_no_other(supervisor, stack):
    import psycopg2

    def opens(role: str, database: str, **other: str) -> bool:
        login = databases.login(stack, role)
        settings = {"host": login["PGHOST"], "port": login["PGPORT"], "user": role, "password": login["PGPASSWORD"]}
        try:
            psycopg2.connect(dbname=database, **settings | other).close()
        except psycopg2.OperationalError:
            return False
        return True

    assert opens("mlflow", "mlflow")
    assert opens("mlflow", "mlflow_auth")
    assert opens("prefect", "prefect")
    assert opens("tune", "tune")
    assert not opens("mlflow", "prefect")
    assert not opens("tune", "mlflow")
    assert not opens("prefect", "mlflow")
    assert not opens("mlflow", "mlflow", password="wrong")  # also from loopback: no trust


def test_a_study_is_kept_where_the_clients_settings_say(supervisor, stack):
    for _ in range(2):
        study, _ = open_study(stack.client["REFLUX_TUNE_STORAGE"], "shapes-1", ["accuracy"])
        study.tell(study.ask(), 0.5)
    assert [trial.value for trial in study.trials] == [0.5, 0.5]


@pytest.mark.long
def test_a_part_that_dies_is_started_again_and_a_killed_supervisor_takes_all_along(supervisor, stack):
    before = records(stack.state)[2]["s3"]
    for process in psutil.Process(before.pid).children():
        process.kill()
    until(lambda: (now := records(stack.state)[2]["s3"]).restarts == 1 and now.pid, 60)
    until(lambda: s3_lists(stack), 60)

    below = psutil.Process(supervisor.pid).children(recursive=True)
    assert {process.name() for process in below} >= {"postgres", "weed"}
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    _, alive = psutil.wait_procs(below, timeout=120)
    assert not alive


def s3_lists(stack: Stack) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        s3.client(stack, USER, stack.secrets["S3_SECRET_KEY"]).list_objects_v2(Bucket="reflux-dvc")
    except (BotoCoreError, ClientError):
        return False
    return True
