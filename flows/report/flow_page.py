"""The flow run's page in Prefect: a progress bar, the result as a table, links, and a name that says the result."""

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import runtime
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client

from reflux.components.observe.boards import declared
from reflux.components.registry import client
from reflux.components.registry.client import Unreachable
from reflux.components.registry.text import urls
from reflux.flows.local.pipelines import artifact_key
from reflux.flows.report import text
from reflux.flows.report.display import Display
from reflux.flows.report.result import Result

_SECONDS_BETWEEN_UPDATES = 5.0


@contextmanager
def progress(display: Display) -> Iterator[None]:
    """Keep a progress bar on the page while the block runs."""
    bar = UUID(str(create_progress_artifact(0.0, key=artifact_key("retrain-progress"), description="starting")))
    stop = threading.Event()

    def keep_up() -> None:
        while not stop.wait(_SECONDS_BETWEEN_UPDATES):
            _update(bar, display)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(keep_up,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _update(bar, display)


def show_result(result: Result, project: str) -> None:
    """Show the result as text and as a table, with links if MLflow is a server, and rename the run after it."""
    key, description = artifact_key("retrain-result"), f"{result.run_name}: result"
    create_markdown_artifact(text.markdown(result), key=key, description=description)
    table = [dict(zip(("model", *text.HEADER[1:]), row, strict=True)) for row in text.rows(result.metrics)]
    description = f"{result.run_name}: teacher, student, control"
    create_table_artifact(table, key=artifact_key("retrain-table"), description=description)
    promotion = result.release.promotion
    if promotion is None:
        return
    for key, (link, label) in _links(project, result.model_name, promotion.version).items():
        create_link_artifact(link, label, key=artifact_key(key))
    rename(project, f"v{promotion.version} {promotion.outcome}")


def rename(project: str, ending: str) -> None:
    """Rename the flow run after its result."""
    began = runtime.flow_run.scheduled_start_time
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(runtime.flow_run.id)), name=f"{project} {began:%Y-%m-%d %H:%M} {ending}")


def _links(project: str, model_name: str, version: int) -> dict[str, tuple[str, str]]:
    """Links that a browser can open, with their text, by the artifact's key."""
    mlflow = client.connect()
    try:
        with client.translate_errors():
            experiment = mlflow.get_experiment_by_name(project)
            tags = client.version(mlflow, model_name, version).tags
    except Unreachable:
        return {}
    pages = {
        "board": (
            declared.HEALTH.link(experiment.experiment_id) if experiment else None,
            "Retraining health in MLflow",
        ),
        "version": (urls.version(model_name, version), f"{model_name} version {version} in MLflow"),
        "card": (urls.card(tags), f"Model card of version {version}"),
    }
    return {key: (whole, label) for key, (page, label) in pages.items() if (whole := urls.address(page))}


def _update(bar: UUID, display: Display) -> None:
    share, words = display.progress()
    try:
        update_progress_artifact(bar, 100 * share, description=words)
    except Exception as error:  # a server that is away fails the flow itself, and this is only a display of it
        logging.getLogger(__name__).debug("progress not updated: %s", error)
