"""Runs in MLflow and Prefect as nights long ago have left them."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from mlflow import MlflowClient
from mlflow.entities import Metric

DAY_MS = 24 * 3600 * 1000


def night(
    experiment: str, days_ago: float, kind: str | None = "pipeline", status: str = "FINISHED", **tags: str
) -> str:
    """Log a run that began and ended some days ago, with a figure; returns its id.

    Args:
        experiment: its id.
        days_ago: when it ended.
        kind: the tag ``run_kind``; None for a run that Reflux did not make.
        status: RUNNING leaves it open.
        tags: further ones, with ``_`` in place of the last dot.
    """
    mlflow, at = MlflowClient(), int(time.time() * 1000 - days_ago * DAY_MS)
    known = {"parent": "mlflow.parentRunId"}
    named = {known.get(name, name.replace("_", ".")): value for name, value in tags.items()}
    run = mlflow.create_run(experiment, at - 60_000, {"run_kind": kind, **named} if kind else named)
    mlflow.log_batch(run.info.run_id, [Metric("val/accuracy", 0.5, at, 0)])
    if status != "RUNNING":
        mlflow.set_terminated(run.info.run_id, status, at)
    return str(run.info.run_id)


def with_file(run_id: str, size: int = 1000) -> Path:
    """Log a file to a run; returns where it is on this machine."""
    mlflow = MlflowClient()
    mlflow.log_text(run_id, "-" * size, "params.yaml")
    return Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "params.yaml"


def flow_runs(home: Path, days_ago: Sequence[float]) -> list[UUID]:
    """Let flow runs have ended some days ago in the embedded Prefect server of a home; returns their ids."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from reflux.flows.local.prefect_server import PrefectServer

    server, retrain = PrefectServer(home), flow(name="retrain")(lambda: None)
    try:
        server.wait()
        with temporary_settings({PREFECT_API_URL: server.api}), get_client(sync_client=True) as client:
            completed = State[None](type=StateType.COMPLETED)
            ids = [client.create_flow_run(retrain, state=completed).id for _ in days_ago]
    finally:
        server.stop()
    with closing(sqlite3.connect(home / "prefect.db")) as database, database:
        for run, days in zip(ids, days_ago, strict=True):
            at = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d %H:%M:%S.%f}"
            database.execute("UPDATE flow_run SET start_time = ?, end_time = ? WHERE id = ?", [at, at, str(run)])
    return ids


def flow_runs_left(home: Path) -> set[UUID]:
    """The ids of the flow runs in the database of an embedded Prefect server."""
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return {UUID(run) for (run,) in database.execute("SELECT id FROM flow_run")}
