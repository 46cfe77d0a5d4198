"""The tune flow: take part in the search of students, on a GPU's worker."""

import time

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from reflux.components.advice.tune.result import DEFAULT_OBJECTIVES, read
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import installed, tracking
from reflux.components.core.runtime.journal import COURIER_VARIABLE, NullJournal
from reflux.flows.local.environment import embed_mlflow, keep_home
from reflux.flows.local.pipelines import artifact_key, enter
from reflux.flows.pipeline import tasks
from reflux.flows.pipeline.clone import flow_run_id, require_tracking
from reflux.flows.pipeline.search import search
from reflux.flows.repo import remote
from reflux.flows.repo.changes import outdated
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.dataset import fetch
from reflux.flows.repo.stages import Runner
from reflux.flows.report import flow_page
from reflux.flows.report import tune as report
from reflux.flows.report.display import Display

_BEFORE = ("ingest", "validate", "pretrain", "finetune", "label")


@flow(name="tune", log_prints=True)
def tune(minutes: float = 60.0, pipeline: str = "") -> State[None]:
    """Search students for some minutes, in the study that all workers share.

    The soft labels are restored from where a retrain has stored them, or else computed first.

    Args:
        minutes: of the search alone.
        pipeline: its name; empty for that of the project's root.

    Raises:
        UserError: the params or the storage are wrong, no candidate can pass, or the time is too short.
        StageFailed: the soft labels could not be made.
    """
    enter(pipeline)
    params, display = load_params(), Display(lambda _: None, get_run_logger(), _BEFORE)
    keep_home(params.project.name, flow_run_id())
    require_tracking()
    prepare_dvc()
    fetch(params.datasets)
    if upgraded := installed.record(params, list(_BEFORE)):
        display.note(f"Note: {upgraded}")
    store = remote.name()
    environment = {"MLFLOW_TRACKING_URI": embed_mlflow(), COURIER_VARIABLE: "1"}
    runner = Runner(display, environment, outdated(params), pull=store is not None)
    with tracking.courier(), flow_page.progress(display), runner:
        stages = tasks.Pipeline(display, NullJournal(), runner, set(), store)
        for name in _BEFORE:
            tasks.stage(stages, name)
    search(params.project.name, time.time() + 60 * minutes, DEFAULT_OBJECTIVES, workers=1)
    result = read()
    key = artifact_key("tune-front")
    create_markdown_artifact(report.markdown(result), key=key, description="The front of the study")
    flow_page.rename(params.project.name, f"{result.counts['trained']} students")
    return Completed(message=report.sentences(result)[0])
