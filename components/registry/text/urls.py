"""Where things are in MLflow's UI, and in Prefect's.

A page is written as ``#/…``, which in a description leads there from whatever address the UI has; :func:`address` makes
it whole for who is outside.
"""

import os
from collections.abc import Mapping
from urllib.parse import quote

from components.core.runtime import tracking
from components.registry import client


def run(experiment_id: str, run_id: str) -> str:
    """A run's page."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def logged_model(experiment_id: str, model_id: str) -> str:
    """A LoggedModel's page."""
    return f"#/experiments/{experiment_id}/models/{model_id}"


def version(model_name: str, number: int) -> str:
    """The page of a registered model's version."""
    return f"#/models/{quote(model_name, safe='')}/versions/{number}"


def card(tags: Mapping[str, str]) -> str | None:
    """The model card of a version with these tags: on its evaluation's run, else among the LoggedModel's files."""
    experiment = tags.get("experiment_id")
    if experiment and (evaluated := tags.get("evaluate.run_id")):
        return f"{run(experiment, evaluated)}/artifacts/model-card.html"
    if experiment and (model := tags.get("model_id")):
        return f"{logged_model(experiment, model)}/artifacts"
    return None


def flow_run(flow_run_id: str) -> str | None:
    """The whole address of a flow run, where the environment says where Prefect's UI is, or its API beside it."""
    base = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    return f"{tracking.without_password(base.rstrip('/'))}/runs/flow-run/{flow_run_id}" if base else None


def address(page: str | None) -> str | None:
    """The page's whole address; None when MLflow is no server that a browser reaches."""
    base = client.address()
    return f"{base.rstrip('/')}/{page}" if page and base.startswith(("http://", "https://")) else None
