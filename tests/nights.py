"""Runs in MLflow as nights long ago have left them."""

import time
from pathlib import Path

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
