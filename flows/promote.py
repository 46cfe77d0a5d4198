"""The promote flow: ``reflux promote`` as a deployment."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.params.file import load_params
from reflux.components.registry.ledger.record import Grounds
from reflux.components.registry.promote import challenge
from reflux.flows.local.environment import keep_home
from reflux.flows.local.pipelines import artifact_key, enter
from reflux.flows.pipeline.clone import flow_run_id, ingest, require_tracking
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.report import flow_page, text


@flow(name="promote")
def promote(version: int, expected_champion: int | None = None, pipeline: str = "") -> State[None]:
    """Evaluate a registered version again, and promote it if it passes its gates and is no worse than the champion.

    Args:
        version: its number.
        expected_champion: the champion that the caller knows, 0 for none; with another one nothing is decided.
        pipeline: its name; empty for that of the project's root.

    Raises:
        UserError: there is no such version, or it can't be evaluated.
        ChampionMoved: the champion is not the expected one.
    """
    enter(pipeline)
    logger, params = get_run_logger(), load_params()
    keep_home(params.project.name, flow_run_id())  # a webhook that can't be sent now is sent by a later run
    require_tracking()
    prepare_dvc()
    ingest(params, logger)  # the test split, which decides
    promotion = challenge(
        ARTIFACTS,
        params.project.name,
        params.registry.model_name,
        version,
        Grounds.of(params),
        again=True,
        expected=expected_champion,
    )
    standing = text.standing(promotion, params.registry.model_name)
    create_markdown_artifact(text.verdict(promotion), key=artifact_key("promotion"), description=standing)
    flow_page.rename(params.project.name, f"v{version} {promotion.outcome}")
    return Completed(message=standing)
