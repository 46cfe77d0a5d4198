"""Links to pages of MLflow's UI and of Prefect's.

A page is written as ``#/…``: in a description in MLflow this link works whatever address the UI has. For a link from
elsewhere, :func:`address` puts the server's address in front.
"""

import os
from collections.abc import Mapping
from urllib.parse import quote

from reflux.components.core.runtime import tracking
from reflux.components.registry import client


def run(experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def logged_model(experiment_id: str, model_id: str) -> str:
    """The page of a LoggedModel."""
    return f"#/experiments/{experiment_id}/models/{model_id}"


def version(model_name: str, number: int) -> str:
    """The page of a registered model's version."""
    return f"#/models/{quote(model_name, safe='')}/versions/{number}"


def card(tags: Mapping[str, str]) -> str | None:
    """The model card of a version with these tags: in its evaluation's run, else among the LoggedModel's files."""
    experiment = tags.get("experiment_id")
    if experiment and (evaluated := tags.get("evaluate.run_id")):
        return f"{run(experiment, evaluated)}/artifacts/model-card.html"
    if experiment and (model := tags.get("model_id")):
        return f"{logged_model(experiment, model)}/artifacts"
    return None


def flow_run(flow_run_id: str) -> str | None:
    """The full address of a flow run, if the environment names Prefect's UI or API."""
    base = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    return f"{tracking.without_secrets(base.rstrip('/'))}/runs/flow-run/{flow_run_id}" if base else None


def address(page: str | None) -> str | None:
    """The full address of a page; None if MLflow is not a server that a browser can open."""
    base = client.address()
    return f"{base.rstrip('/')}/{page}" if page and base.startswith(("http://", "https://")) else None
