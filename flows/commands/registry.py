"""``reflux predict | promote | approve | rollback | history | reconcile``: the model registry on a terminal."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.errors import UserError
from components.core.params.file import load_params
from components.core.params.sections import Params
from components.registry import webhooks
from flows.local.environment import embed_mlflow
from flows.report.display import console

if TYPE_CHECKING:
    from components.registry.promote import PromotionResult

EXIT_REFUSED = 3

_BAR_WIDTH = 24


def predict(image: Path, model: str, top: int) -> None:
    """Print the class and the probabilities of an image.

    Args:
        image: the image file.
        model: an alias or a version number.
        top: how many classes to print.

    Raises:
        UserError: the image or the model can't be read.
    """
    from components.registry.predict import predict as classify

    params = registry_params()
    name = params.registry.model_name
    uri = f"models:/{name}/{model}" if model.isdecimal() else f"models:/{name}@{model}"
    prediction = classify(image, uri, params.ingest.max_megapixels)
    print(f"{prediction.class_name}  ({prediction.model_name} version {prediction.version})\n")
    classes = list(prediction.probabilities.items())[:top]
    width = max(len(label) for label, _ in classes)
    for label, probability in classes:
        print(f"  {label:<{width}}  {100 * probability:6.2f} %  {'█' * round(_BAR_WIDTH * probability)}".rstrip())


def promote(version: int, expected_champion: int | None) -> int:
    """Decide on a version, carry the decision out, and print it with its reasons.

    Args:
        version: the challenger.
        expected_champion: the champion that the caller knows, 0 for none; with another one nothing is decided.

    Returns:
        The exit code: 0 promoted, 3 not promoted.

    Raises:
        ChampionMoved: the champion is not the expected one.
        UserError: there is no such version, or MLflow does not answer.
    """
    from components.core.artifacts import ARTIFACTS
    from components.registry.ledger.record import Grounds
    from components.registry.promote import challenge

    params = registry_params()
    promotion = challenge(
        ARTIFACTS,
        params.project.name,
        params.registry.model_name,
        version,
        Grounds.of(params),
        again=True,
        expected=expected_champion,
    )
    return _show(promotion, params.registry.model_name)


def approve(version: int, reason: str) -> int:
    """Promote a version that awaits approval, and print the decision.

    Returns:
        The exit code, as in ``promote``.

    Raises:
        UserError: it awaits no approval, or MLflow does not answer.
    """
    from components.registry.promote import approve as give

    params = registry_params()
    name = params.registry.model_name
    promotion = give(params.project.name, name, version, reason)
    if os.environ.get("PREFECT_API_URL"):
        from flows.pipeline.approval import resume

        resume(name, version, reason)
    return _show(promotion, name)


def _show(promotion: "PromotionResult", model_name: str) -> int:
    from flows.report.text import reasons, standing

    screen = console()
    screen.print(reasons(promotion))
    screen.print(f"\n{standing(promotion, model_name)}", style="bold")
    return 0 if promotion.outcome in ("promoted", "unchanged") else EXIT_REFUSED


def rollback(reason: str, to: int | None) -> None:
    """Put an earlier champion back into production.

    Raises:
        ChampionMoved: someone else moved the champion at the same time.
        UserError: there is nothing to roll back to, or MLflow does not answer.
    """
    from components.registry.rollback import rollback as go_back

    params = registry_params()
    name = params.registry.model_name
    champion, rolled_back = go_back(params.project.name, name, reason, to)
    print(f"{name}: version {champion} is the champion again; version {rolled_back} was rolled back.")


def reconcile() -> None:
    """Finish or close interrupted promotions, and print which.

    Raises:
        UserError: MLflow does not answer.
    """
    from components.registry import client
    from components.registry.ledger.commit import reconcile as settle

    params = registry_params()
    settled = settle(client.connect(), params.project.name, params.registry.model_name)
    for entry in settled:
        print(f"{params.registry.model_name} version {entry.version}: {entry.outcome}. {entry.why}")
    if not settled:
        print("Nothing was interrupted: the registry is consistent.")


def history(as_json: bool) -> None:
    """Print what is in production, and below it who moved what, when and why, newest first.

    Args:
        as_json: print JSON.

    Raises:
        UserError: no version is registered, or MLflow does not answer.
    """
    from components.registry import history as registry_history
    from flows.report import text

    params = registry_params()
    past = registry_history.history(params.project.name, params.registry.model_name)
    if as_json:
        print(json.dumps(asdict(past), indent=2, default=lambda at: at.isoformat()))
        return
    console().print(text.history(past))


def registry_params() -> Params:
    """The params, after events of earlier commands were sent to their webhooks.

    Raises:
        UserError: there is no model yet.
    """
    params = load_params()
    webhooks.send(linger_s=webhooks.LATER_S)
    if embed_mlflow().startswith("sqlite:///") and not Path(embed_mlflow().removeprefix("sqlite:///")).is_file():
        raise UserError("There is no model yet (this checkout has no mlflow.db): run `reflux run` first.")
    return params
