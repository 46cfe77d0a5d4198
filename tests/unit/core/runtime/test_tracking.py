"""Journals against a real MLflow on SQLite, and against no server at all."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import OUTBOX, Journal, flatten


def runs():
    return {run.info.run_name: run for run in mlflow.MlflowClient().search_runs(["1"])}


def record(parent: str | None = None, name: str = "distill") -> Journal:
    journal = Journal("demo", name, {"stage": name}, parent=parent)
    journal.params({"distill": {"temperature": 2.0}})
    for step in range(3):
        journal.metrics({"val/accuracy": step / 10, "lr": 0.1}, step=step)
    return journal


def test_a_run_arrives_whole(mlflow_home: Path):
    parent = Journal("demo", "pipeline", {"run_kind": "pipeline"})
    child = record(parent.id)
    report = mlflow_home / "report.txt"
    report.write_text("first")
    child.artifact(report)
    report.write_text("changed later")
    child.dataset("fashion", "0123456789abcdef0123456789abcdef.dir", "data/fashion", "train")
    child.end("FINISHED")
    parent.end("FINISHED")
    assert tracking.deliver() == 0
    runs_by_name = runs()
    run, client = runs_by_name["distill"], mlflow.MlflowClient()
    assert run.info.status == "FINISHED"
    assert run.data.params == {"distill.temperature": "2.0"}
    assert [m.value for m in client.get_metric_history(run.info.run_id, "val/accuracy")] == [0.0, 0.1, 0.2]
    assert run.data.tags["mlflow.parentRunId"] == runs_by_name["pipeline"].info.run_id
    kept = client.download_artifacts(run.info.run_id, "report.txt")
    assert Path(kept).read_text() == "first"
    assert run.inputs.dataset_inputs[0].dataset.digest == "0123456789abcdef0123456789abcdef.dir"
    assert not list(OUTBOX.iterdir())


@pytest.mark.parametrize("delivered_between", [True, False])
def test_a_training_that_goes_on_after_a_kill_is_one_run_with_one_curve(mlflow_home: Path, delivered_between: bool):
    killed = """
from reflux.components.core.runtime.journal import Journal
first = Journal("demo", "first", {"run_kind": "pipeline"})
journal = Journal("demo", "distill", {"stage": "distill"}, parent=first.id)
journal.params({"lr": 0.1})
for step in range(3):
    journal.metrics({"val/accuracy": step / 10}, step=step)
print(journal.run_key)
"""
    process = subprocess.run([sys.executable, "-c", killed], capture_output=True, text=True, check=True)
    if delivered_between:
        tracking.deliver()
        assert runs()["distill"].info.status == "KILLED"
    second = Journal("demo", "second", {"run_kind": "pipeline"})
    again = Journal("demo", "distill", {"stage": "distill"}, parent=second.id, continues=process.stdout.strip())
    again.params({"lr": 0.2})
    again.metrics({"val/accuracy": 0.3}, step=3)
    tracking.deliver()
    assert runs()["distill"].info.status == "RUNNING"
    again.end("FINISHED")
    second.end("FINISHED")
    assert tracking.deliver() == 0
    runs_by_name = runs()
    run = runs_by_name["distill"]
    assert set(runs_by_name) == {"first", "second", "distill"}
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["mlflow.parentRunId"] == runs_by_name["second"].info.run_id
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val/accuracy")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert not list(OUTBOX.iterdir())


def test_delivery_goes_on_where_it_stopped(mlflow_home: Path):
    journal = record()
    tracking.deliver()
    tracking.deliver()
    journal.metrics({"val/accuracy": 0.9}, step=3)
    journal.end("FINISHED")
    tracking.deliver()
    (run,) = runs().values()
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val/accuracy")
    assert [m.value for m in history] == [0.0, 0.1, 0.2, 0.9]


def test_a_start_that_was_sent_but_not_noted_is_not_sent_twice(mlflow_home: Path):
    journal = record()
    tracking.deliver()
    (journal.folder / "delivery.json").unlink()
    journal.end("FINISHED")
    tracking.deliver()
    assert len(runs()) == 1


def test_a_server_that_is_away_costs_little_and_loses_nothing(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch):
    there = os.environ["MLFLOW_TRACKING_URI"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    parent = Journal("demo", "pipeline", {})
    journal = record(parent.id)
    journal.end("FINISHED")
    parent.end("FINISHED")
    assert tracking.deliver() == 2
    assert journal.run_id() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
    assert tracking.deliver() == 0
    runs_by_name = runs()
    assert runs_by_name["distill"].data.tags["mlflow.parentRunId"] == runs_by_name["pipeline"].info.run_id
    assert runs_by_name["distill"].info.start_time <= runs_by_name["distill"].info.end_time <= int(time.time() * 1000)


def test_a_database_that_is_away_costs_little_and_loses_nothing(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch):
    there = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setattr(tracking, "_TRIES_OF_A_DATABASE", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:9/mlflow")
    journal = record()
    journal.end("FINISHED")
    assert tracking.deliver() == 1
    assert journal.run_id() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
    assert tracking.deliver() == 0
    assert runs()["distill"].info.status == "FINISHED"


def test_a_killed_process_leaves_a_run_marked_killed(mlflow_home: Path):
    script = """
import os, signal
from reflux.components.core.runtime.journal import Journal
journal = Journal("demo", "distill", {})
journal.metrics({"val/accuracy": 0.5}, step=1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    (folder,) = OUTBOX.iterdir()
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"op": "metrics", "cut sho')
    assert tracking.deliver() == 0
    (run,) = runs().values()
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"val/accuracy": 0.5}


def test_a_live_run_stays_open(mlflow_home: Path):
    record()
    tracking.deliver()
    (run,) = runs().values()
    assert run.info.status == "RUNNING"


def test_the_courier_gives_a_stage_its_run_id(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REFLUX_COURIER", "1")
    with tracking.courier():
        journal = record()
        run_id = journal.run_id()
        journal.end("FINISHED")
    (run,) = runs().values()
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"


def test_without_a_tracking_uri_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record().end("FINISHED")
    assert tracking.deliver() == 0
    assert len(list(OUTBOX.iterdir())) == 1
    assert not (tmp_path / "mlflow.db").exists()


def test_sections_flatten_to_dotted_names():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_retrains_are_numbered_and_their_figures_stand_at_their_number(mlflow_home: Path):
    picture = mlflow_home / "mistakes.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    for name in ("first", "edited by hand", "second"):
        retrain = Journal("demo", name, {"run_kind": "pipeline"})
        retrain.metrics({"test/student_accuracy": 0.5}, step=None)
        retrain.image("mistakes/worst", picture)
        retrain.end("FINISHED")
        tracking.deliver()
        if name == "edited by hand":
            mlflow.MlflowClient().set_tag(runs()[name].info.run_id, "retrain", "the good one")
    runs_by_name, client = runs(), mlflow.MlflowClient()
    assert [runs_by_name[name].data.tags["retrain"] for name in ("first", "second")] == ["1", "2"]
    run_id = runs_by_name["second"].info.run_id
    assert [m.step for m in client.get_metric_history(run_id, "test/student_accuracy")] == [2]
    images = [file.path for file in client.list_artifacts(run_id, "images")]
    assert any("mistakes" in path and path.endswith(".png") for path in images)


SECRETS = st.text("abcXYZ0189-_.~!$&+,;=:@/?#%", min_size=6).filter(lambda text: not text[:6].isdigit())
PLAIN = st.text("abcXYZ0189-_.~", min_size=6)


@given(SECRETS, PLAIN)
def test_no_secret_of_an_address_is_shown(secret: str, name: str):
    for address, shown in (
        (f"https://{name}:s3cret{secret}@host.org/api", "https://host.org/api"),
        (f"https://:s3cret{secret}@host.org/api", "https://host.org/api"),
        (f"https://s3cret{name}@host.org:80/api", "https://host.org:80/api"),
    ):
        assert (
            tracking.without_secrets(f"MLflow at {address} does not answer.") == f"MLflow at {shown} does not answer."
        )
    for address in (f"https://host.org/api?token=s3cret{secret}", f"https://host.org/api#s3cret{secret}"):
        said = tracking.without_secrets(f"Prefect at {address} does not answer.")
        assert "s3cret" not in said
        assert said.startswith("Prefect at https://")


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/ada/mlflow.db",
        "http://127.0.0.1:5000/api",
        "https://host.org:443/models/m@champion",
        "models:/clothes@champion",
        "git@host.org:ada/flowers.git",
        "Did you mean a? b=c, at 12:30@home.",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(text: str):
    assert tracking.without_secrets(text) == text


def test_the_names_in_a_query_stay():
    shown = "postgresql+psycopg2://db.org/mlflow?sslmode=…&password=…"
    assert tracking.without_secrets("postgresql+psycopg2://ada:pw@db.org/mlflow?sslmode=require&password=x") == shown
