"""The flow run's page in Prefect's UI: how far the stages are, the result as a table, links, a name that says it."""

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

from components.boards import declared
from components.registry import client
from components.registry.client import Unreachable
from components.registry.text import urls
from flows.report import text
from flows.report.display import Display
from flows.report.result import Result

_SECONDS_BETWEEN_UPDATES = 5.0


@contextmanager
def progress(shown: Display) -> Iterator[None]:
    """Keep a progress bar on the page while the block runs."""
    bar = UUID(str(create_progress_artifact(0.0, key="retrain-progress", description="starting")))
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(_SECONDS_BETWEEN_UPDATES):
            _update(bar, shown)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(tell,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _update(bar, shown)


def result(result: Result, project: str) -> None:
    """Put the result on the page: in words, as a table, with links where MLflow is a server; and name the run by it."""
    create_markdown_artifact(text.markdown(result), key="retrain-result", description=f"{result.run_name}: result")
    table = [dict(zip(("model", *text.HEADER[1:]), row, strict=True)) for row in text.rows(result.metrics)]
    create_table_artifact(table, key="retrain-table", description=f"{result.run_name}: teacher, student, control")
    promotion = result.release.promotion
    if promotion is None:
        return
    for key, (link, label) in _links(project, result.model_name, promotion.version).items():
        create_link_artifact(link, label, key=key)
    rename(project, f"v{promotion.version} {promotion.outcome}")


def rename(project: str, came_to: str) -> None:
    """Name the flow run by what came of it."""
    began = runtime.flow_run.scheduled_start_time
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(runtime.flow_run.id)), name=f"{project} {began:%Y-%m-%d %H:%M} {came_to}")


def _links(project: str, model_name: str, version: int) -> dict[str, tuple[str, str]]:
    """Addresses that a browser reaches, by the artifact's key."""
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


def _update(bar: UUID, shown: Display) -> None:
    share, text = shown.progress()
    try:
        update_progress_artifact(bar, 100 * share, description=text)
    except Exception as error:  # a server that is away fails the flow itself, and this is only a picture of it
        logging.getLogger(__name__).debug("no progress told: %s", error)
