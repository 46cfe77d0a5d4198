"""The train flow: the stages that train, on a GPU's worker, for a retrain that runs elsewhere."""

from collections.abc import Sequence

from prefect import flow, get_run_logger

from reflux.components.core.contract import TRAINING
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime import installed, tracking
from reflux.components.core.runtime.journal import COURIER_VARIABLE, PARENT_RUN_VARIABLE, NullJournal
from reflux.components.core.runtime.lineage import LOCK
from reflux.flows.local.environment import embed_mlflow, keep_home
from reflux.flows.local.pipelines import enter
from reflux.flows.pipeline import tasks, two_pools
from reflux.flows.pipeline.clone import flow_run_id, require_tracking
from reflux.flows.repo import remote
from reflux.flows.repo.changes import outdated
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.stages import Runner
from reflux.flows.report import flow_page
from reflux.flows.report.display import Display
from reflux.flows.report.tracing import traced


@flow(name="train")
def train(overrides: Sequence[str], lock: str, parent: str, pipeline: str = "") -> None:
    """Bring the stages that train up to date, for a retrain flow that started this one.

    Args:
        overrides: of the retrain's params.
        lock: its ``dvc.lock``, which knows the ingested and validated data.
        parent: its run in MLflow, below which the stages' runs belong.
        pipeline: its pipeline's name; empty for that of the project's root.

    Raises:
        UserError: there is no remote to fetch the data from.
        StageFailed: a stage failed.
    """
    display = Display(lambda _: None, get_run_logger(), TRAINING)
    enter(pipeline)
    params = override_params(list(overrides)) if overrides else load_params()
    keep_home(params.project.name, flow_run_id())
    require_tracking()
    prepare_dvc()
    if (store := remote.name()) is None:
        raise UserError(
            "This worker knows no default DVC remote: `dvc remote add --default NAME URL`, and commit .dvc/config."
        )
    LOCK.write_text(lock, encoding="utf-8")
    if upgraded := installed.record(params, TRAINING):
        display.note(f"Note: {upgraded}")
    tasks.pull(store, two_pools.read(TRAINING))
    environment = {"MLFLOW_TRACKING_URI": embed_mlflow(), COURIER_VARIABLE: "1", PARENT_RUN_VARIABLE: parent}
    runner = Runner(display, environment, outdated(params), pull=True)
    trace = traced(display, "train", params.project.name, flow_run_id())
    with trace, tracking.courier(), flow_page.progress(display), runner:
        stages = tasks.Pipeline(display, NullJournal(), runner, set(), store)
        tasks.train(stages)
    two_pools.give_back(stages.outcomes)
