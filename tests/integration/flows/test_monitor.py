"""The monitor's memory in a real MLflow, and its one retrain in a real Prefect."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.components.core.shift import NO_PREDICTIONS, STATISTICS, Sample, compare
from reflux.components.registry import client
from reflux.flows import monitor
from reflux.flows.monitor import Check

pytestmark = pytest.mark.slow

PARAMS = Path(__file__).parents[3] / "params.yaml"


def sample(shift: float) -> Sample:
    rng = np.random.default_rng(0)
    statistics = {name: rng.uniform(0, 0.5, 200) + shift for name in STATISTICS}
    return Sample(("a", "b"), (8, 8, 1), np.array([50, 50]), statistics, *NO_PREDICTIONS)


def test_a_check_remembers_what_the_last_ones_said_of_the_same_champion(mlflow_home):
    shutil.copy(PARAMS, "params.yaml")
    params = override_params(["monitor.m=3", "monitor.n=2"])
    mlflow = client.connect()
    assert monitor._votes(mlflow, params, champion=1) == []
    old = sample(0.0)
    for champion, shift, differs in ((1, 0.3, True), (1, 0.0, False), (2, 0.3, True), (1, 0.3, True)):
        tests = compare(old, sample(shift), params.monitor.alpha)
        assert any(test.differs for test in tests) is differs
        check = Check(champion, "0123.dir", 200, tests, [differs], "All is well.")
        monitor._record(mlflow, params, check, old, sample(shift))
    assert monitor._votes(mlflow, params, champion=1) == [True, False], "the last two before this one, newest first"
    assert monitor._votes(mlflow, params, champion=2) == [True]
    run = mlflow.search_runs([mlflow.get_experiment_by_name("fashion-mnist/monitor").experiment_id])[0]
    assert {file.path for file in mlflow.list_artifacts(run.info.run_id)} == {"drift.md", "drift.png"}
    assert run.data.metrics["p/brightness"] < 1e-6
    assert "they differ in brightness, contrast, sharpness" in run.data.tags["mlflow.note.content"]


def test_a_pipeline_asks_for_its_own_retrain(prefect_api, tmp_path, monkeypatch):
    for name in (".dvc", "pipelines/pets"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "pipelines/pets")
    with pytest.raises(UserError, match="no deployment retrain/retrain-pets: run `reflux deploy`"):
        monitor.start_retrain("model:1:aaa")


def test_a_retrain_is_asked_for_once_and_never_while_one_waits(prefect_api, monkeypatch):
    monkeypatch.setattr(monitor, "RETRAIN", "retrain/asked-for")
    with pytest.raises(UserError, match=r"no deployment retrain/asked-for.*reflux deploy"):
        monitor.start_retrain("model:1:aaa")
    deployment = make(prefect_api)
    planned(prefect_api, deployment, datetime.now(UTC) + timedelta(hours=5))
    assert monitor.start_retrain("model:1:aaa").startswith("A retrain is started: ")
    (run,) = retrains(prefect_api)
    assert monitor.start_retrain("model:1:aaa") == f"A retrain on this data was started before: {run['name']}."
    refused = f"No retrain is started, because {run['name']} is running or waiting already."
    assert monitor.start_retrain("model:1:bbb") == refused
    state(prefect_api, run["id"], "RUNNING")
    assert monitor.start_retrain("model:1:bbb").endswith("is running or waiting already.")
    state(prefect_api, run["id"], "FAILED")
    assert monitor.start_retrain("model:1:aaa").startswith("A retrain on this data was started before")
    assert monitor.start_retrain("model:1:bbb").startswith("A retrain is started: ")
    assert len(retrains(prefect_api)) == 2


def make(api: str) -> str:
    flow = httpx.post(f"{api}/flows/", json={"name": "retrain"}, timeout=120).raise_for_status().json()["id"]
    wanted = {"name": "asked-for", "flow_id": flow, "tags": []}
    return httpx.post(f"{api}/deployments/", json=wanted, timeout=120).raise_for_status().json()["id"]


def planned(api: str, deployment: str, at: datetime) -> None:
    """What the scheduler does for a cron."""
    schedule = [{"schedule": {"interval": 86400, "anchor_date": at.isoformat()}, "active": True, "slug": "later"}]
    made = httpx.post(f"{api}/deployments/{deployment}/schedules", json=schedule, timeout=120)
    made.raise_for_status()
    now = {"start_time": datetime.now(UTC).isoformat(), "min_runs": 2}
    httpx.post(f"{api}/deployments/{deployment}/schedule", json=now, timeout=120).raise_for_status()
    assert [run for run in runs(api) if run["deployment_id"] == deployment and run["auto_scheduled"]]


def runs(api: str) -> list[dict]:
    return httpx.post(f"{api}/flow_runs/filter", json={}, timeout=120).raise_for_status().json()


def retrains(api: str) -> list[dict]:
    return [run for run in runs(api) if "monitor" in run["tags"]]


def state(api: str, run: str, type: str) -> None:
    change = {"state": {"type": type}, "force": True}
    httpx.post(f"{api}/flow_runs/{run}/set_state", json=change, timeout=120).raise_for_status()
