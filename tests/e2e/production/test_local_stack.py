"""infra/local as a team uses it: servers, a retraining on the GPU pool, a champion, a second machine, the end."""

import base64
import hashlib
import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from infra.local import s3
from infra.local.settings import USER
from tests.e2e.stack import LOCAL, LocalStack, deploy_to, logs_of
from tests.servers import has_postgres
from tests.trees import command_line, is_alive

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not has_postgres(), reason="NO POSTGRES: install Debian's postgresql"),
]

PARTS = {"postgres", "s3", "mlflow", "prefect", "worker-cpu", "worker-gpu"}


@pytest.fixture(scope="module")
def first(stack, deployment) -> str:
    """The first retraining's flow run."""
    run = stack.start(deployment)
    ended = stack.ended(run)
    assert ended["state_type"] == "COMPLETED", stack.logs(run) + logs_of(stack.state)
    return run


def test_all_parts_answer_and_a_second_up_starts_nothing(stack):
    status = stack.local("status")
    assert status.returncode == 0, status.stdout
    rows = {line.split()[0]: line for line in status.stdout.splitlines()[1:]}
    assert rows.keys() == PARTS
    assert all("answers" in row and " 0" in row for row in rows.values())
    before = {process.pid for process in stack.processes()[:1]} | {stack.part(name).pid for name in PARTS}
    again = stack.local("up")
    assert again.returncode == 0, again.stderr
    assert f"set -a; . {stack.state}/stack.env; set +a" in again.stdout
    assert {process.pid for process in stack.processes()[:1]} | {stack.part(name).pid for name in PARTS} == before


def test_the_servers_ask_who_is_there(stack):
    mlflow, prefect = stack.environment["MLFLOW_TRACKING_URI"], stack.environment["PREFECT_API_URL"]
    search = f"{mlflow}/api/2.0/mlflow/experiments/search"
    login = (USER, stack.environment["MLFLOW_TRACKING_PASSWORD"])
    assert httpx.post(search, json={"max_results": 1}).status_code == 401
    assert httpx.post(search, json={"max_results": 1}, auth=("admin", "password1234")).status_code == 401
    assert httpx.post(search, json={"max_results": 1}, auth=login).status_code == 200
    # A page in someone's browser that resolves its own name to this machine is turned away.
    rebound = {"Host": "evil.example.com"}
    assert httpx.post(search, json={"max_results": 1}, auth=login, headers=rebound).status_code == 403
    assert httpx.post(f"{prefect}/flows/filter", json={}).status_code == 401
    login = (USER, stack.environment["PREFECT_API_AUTH_STRING"].partition(":")[2])
    assert httpx.get(f"{prefect}/metrics").status_code == 401
    assert "process_resident_memory_bytes" in httpx.get(f"{prefect}/metrics", auth=login).raise_for_status().text
    assert stack.prefect("POST", "/flows/filter", {}) is not None
    listens = {
        connection.laddr.ip
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listens == {"127.0.0.1"}


def test_a_run_on_the_gpu_pool_ends_in_a_champion_in_postgres_and_s3(stack, first):
    run = stack.flow_run(first)
    assert run["work_pool_name"] == "gpu"
    version = stack.mlflow().get_model_version_by_alias("shapes-student", "champion")
    assert version.tags["prefect.flow_run_id"] == first
    assert stack.parent(first).info.status == "FINISHED"
    files = contents(stack, "reflux-mlflow")
    shas = {hashlib.sha256(content).hexdigest() for content in files.values()}
    assert version.tags["artifact_sha256"] in shas
    rows = query(stack, "SELECT name, version FROM model_versions")
    assert ("shapes-student", int(version.version)) in rows


def test_a_second_run_registers_nothing(stack, deployment, first):
    run = stack.start(deployment)
    ended = stack.ended(run)
    assert (ended["state_type"], ended["state_name"]) == ("COMPLETED", "Skipped"), stack.logs(run)
    versions = stack.mlflow().search_model_versions("name = 'shapes-student'")
    assert [str(version.version) for version in versions] == ["1"]
    assert not stack.at_work("reflux.components.", "supervise.py 0")


def test_no_secret_is_in_logs_artifacts_params_or_process_lists(stack, first):
    planted = dict(stack.known.secrets)
    login = f"{USER}:{planted['PREFECT_PASSWORD']}".encode()
    planted["PREFECT_BASIC"] = base64.b64encode(login).decode()
    places = {f"log {log.name}": log.read_bytes() for log in (stack.state / "log").glob("*.log")}
    places |= {f"artifact {key}": content for key, content in contents(stack, "reflux-mlflow").items()}
    places |= {f"dvc {key}": content for key, content in contents(stack, "reflux-dvc").items()}
    places["prefect"] = stack.logs(first).encode()
    places["processes"] = "\n".join(map(command_line, psutil.process_iter())).encode()
    tables = query(stack, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        places[f"table {table}"] = str(query(stack, f'SELECT * FROM "{table}"')).encode()  # noqa: S608
    assert len(places["log mlflow.log"]) > 100
    assert len(tables) > 20
    leaks = [
        (name, place) for place, text in places.items() for name, secret in planted.items() if secret.encode() in text
    ]
    assert not leaks


def test_a_second_machine_joins_with_the_file_alone_and_takes_the_run(stack, deployment, first, tmp_path):
    """A shell that knows nothing but stack.env: the stack's own worker is held, so this one must take the run."""
    script = f". {stack.state}/stack.env; exec {LOCAL}/worker gpu --name second --home {tmp_path}/worker"
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable}
    held = stack.part("worker-gpu")
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            ["sh", "-c", f"set -a; {script}"], env=bare, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        held.suspend()
        run = stack.start(deployment, ("evaluate.latency_runs=21",))
        ended = stack.ended(run)
        assert ended["state_type"] == "COMPLETED", stack.logs(run) + (tmp_path / "log").read_text()
        assert (tmp_path / "worker" / "second" / "clones").is_dir()
        assert any((tmp_path / "worker" / "cache").rglob("*"))
    finally:
        held.resume()
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(120)


def test_runs_of_tune_on_two_workers_are_one_study_in_postgres(stack, deployment, first):
    runs = [stack.start(name, minutes=2) for name in ("tune/tune", deploy_to(stack, "tune/tune", "cpu"))]
    for run in runs:
        ended = stack.ended(run)
        assert (ended["state_type"], ended["name"].endswith(" students")) == ("COMPLETED", True), stack.logs(run)
    ((studies,),) = query(stack, "SELECT count(*) FROM studies", "tune")
    assert studies == 1
    client = stack.mlflow()
    found = client.search_runs([client.get_experiment_by_name("shapes").experiment_id], "tags.run_kind LIKE 'tune%'")
    trials = [run for run in found if run.data.tags["run_kind"] == "tune trial"]
    ((ended,),) = query(stack, "SELECT count(*) FROM trials WHERE state = 'COMPLETE'", "tune")
    assert len(trials) >= ended >= 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in trials}) <= 2


def test_down_leaves_no_process_and_up_finds_all_again(stack):
    kept = stack.mlflow().create_experiment("kept")
    stack.mlflow().log_text(stack.mlflow().create_run(kept).info.run_id, "a file on S3", "a.txt")
    everyone = stack.processes()
    assert len(everyone) > 12
    began = time.monotonic()
    assert stack.local("down").returncode == 0
    assert time.monotonic() - began < 60
    _, there = psutil.wait_procs(everyone, timeout=1)
    assert not any(map(is_alive, there))
    assert stack.local("status").returncode == 1
    up = stack.local("up")
    assert up.returncode == 0, up.stderr
    (run,) = stack.mlflow().search_runs([kept])
    files = {key: content for key, content in contents(stack, "reflux-mlflow").items() if run.info.run_id in key}
    assert list(files.values()) == [b"a file on S3"]


def contents(stack: LocalStack, bucket: str) -> dict[str, bytes]:
    client = s3.client(stack.known, "admin", stack.known.secrets["S3_ADMIN_SECRET_KEY"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def query(stack: LocalStack, statement: str, database: str = "mlflow") -> list[tuple]:
    import psycopg2

    known = stack.known
    login = {"host": "127.0.0.1", "port": known.port("POSTGRES"), "user": database}
    login["password"] = known.secrets[f"{database.upper()}_DB_PASSWORD"]
    connection = psycopg2.connect(dbname=database, **login)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()
