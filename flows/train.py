"""The train flow: the stages that train, on a GPU's worker, for a retrain that runs elsewhere."""

from collections.abc import Sequence

from prefect import flow, get_run_logger, runtime

from components.core import params as parameters
from components.core import tracking
from components.core.errors import UserError
from components.core.journal import COURIER_VARIABLE, PARENT_RUN_VARIABLE, Muted
from components.core.lineage import LOCK
from flows import elsewhere, flow_page, pipeline, remote
from flows.display import Display
from flows.environment import embed_mlflow, keep_home, prepare_dvc
from flows.fresh import require_tracking
from flows.stages import Runner


@flow(name="train")
def train(overrides: Sequence[str], lock: str, parent: str) -> None:
    """Bring the stages that train up to date; only a retrain asks for it.

    Args:
        overrides: of the retrain's params.
        lock: its ``dvc.lock``, which knows the ingested and validated data.
        parent: its run in MLflow, below which the stages' runs belong.

    Raises:
        UserError: there is no remote to fetch the data from.
        StageFailed: a stage failed.
    """
    shown = Display(lambda _: None, get_run_logger(), pipeline.TRAINING)
    params = parameters.override(list(overrides)) if overrides else parameters.load()
    keep_home(params.project.name, str(runtime.flow_run.id))
    require_tracking()
    prepare_dvc()
    if (store := remote.name()) is None:
        raise UserError("this worker knows no default DVC remote: commit it to .dvc/config, or set it on the worker.")
    LOCK.write_text(lock, encoding="utf-8")
    remote.pull(store, elsewhere.read(pipeline.TRAINING))
    environment = {"MLFLOW_TRACKING_URI": embed_mlflow(), COURIER_VARIABLE: "1", PARENT_RUN_VARIABLE: parent}
    runner = Runner(shown, environment, pipeline.outdated(params), pull=True)
    with tracking.courier(), flow_page.progress(shown), runner:
        training = pipeline.Pipeline(shown, Muted(), runner, set(), store)
        pipeline.train(training)
    elsewhere.give_back(training.outcomes)
