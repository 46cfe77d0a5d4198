"""``reflux predict | promote | approve | rollback | history | reconcile``: the model registry on a terminal."""

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from reflux.components.core.artifacts import as_cell
from reflux.components.core.errors import UserError, printable
from reflux.components.core.params.file import load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import tracking
from reflux.components.registry import webhooks
from reflux.flows.local.environment import embed_mlflow
from reflux.flows.report.display import console

if TYPE_CHECKING:
    from reflux.components.registry.predict import Prediction
    from reflux.components.registry.promote import PromotionResult

EXIT_REFUSED = 3

_BAR_WIDTH = 24


def predict(paths: list[Path], model: str, top: int | None, as_csv: bool) -> None:
    """Print the classes of images: of one file with bars, of several as a table or as CSV.

    What can't be read is listed on stderr at the end.

    Args:
        paths: image files, folders and patterns.
        model: an alias or a version number.
        top: how many classes to print of each image; by default 5 of one file, else 1.
        as_csv: print CSV.

    Raises:
        UserError: no image, or the model, can be read.
    """
    from reflux.components.registry.predict import Unreadable, find
    from reflux.components.registry.predict import predict as classify

    if not re.fullmatch("[^/@]+", model):
        raise UserError(f"--model {model} is neither an alias nor a version number: `reflux history` lists both.")
    params = registry_params()
    name = params.registry.model_name
    uri = f"models:/{name}/{model}" if model.isdecimal() else f"models:/{name}@{model}"
    images, unread = find(paths)

    def predictions() -> "Iterator[Prediction]":
        for each in classify(images, uri, params.ingest.max_megapixels) if images else ():
            if isinstance(each, Unreadable):
                unread.append(each)
            else:
                yield each

    show = _write_csv if as_csv else _print_bars if images == paths[:1] else _print_table
    shown = show(predictions(), top or (5 if show is _print_bars else 1))
    sentences = [f"{each.path} {each.reason}" for each in unread]
    if not shown:
        which = sentences[0] if len(sentences) == 1 else f"None of {len(sentences):,} can be read, as {sentences[0]}"
        raise UserError(f"{which}: give PNG, JPEG, WebP, BMP, TIFF or GIF files, or folders of them.")
    if unread:
        print(f"{len(unread):,} could not be read:", *map(printable, sentences), sep="\n  ", file=sys.stderr)


def _print_bars(predictions: "Iterable[Prediction]", top: int) -> int:
    shown = 0
    for shown, prediction in enumerate(predictions, 1):  # noqa: B007 - the count is returned
        print(f"{prediction.class_name}  ({prediction.model_name} version {prediction.version})\n")
        classes = list(prediction.probabilities.items())[:top]
        width = max(len(label) for label, _ in classes)
        for label, probability in classes:
            bar = "█" * round(_BAR_WIDTH * probability)
            print(f"  {label:<{width}}  {100 * probability:6.2f} %  {bar}".rstrip())
    return shown


def _print_table(predictions: "Iterable[Prediction]", top: int) -> int:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("file", overflow="fold")
    model = ""
    for prediction in predictions:
        model = f"{prediction.model_name} version {prediction.version}"
        classes = list(prediction.probabilities.items())[:top]
        for number in range(1, len(classes) + 1) if not table.row_count else ():
            table.add_column(f"class {number}" if number > 1 else "class", overflow="fold")
            table.add_column("probability", justify="right")
        cells = [cell for label, share in classes for cell in (label, f"{100 * share:.2f} %")]
        table.add_row(*(Text(printable(cell)) for cell in (str(prediction.image), *cells)))
    if table.row_count:
        console().print(table)
        print(f"\n{table.row_count:,} {'image' if table.row_count == 1 else 'images'}, by {model}")
    return table.row_count


def _write_csv(predictions: "Iterable[Prediction]", top: int) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    shown = 0
    for shown, prediction in enumerate(predictions, 1):
        classes = list(prediction.probabilities.items())[:top]
        if shown == 1:
            further = [f"{name}_{n}" for n in range(2, len(classes) + 1) for name in ("class", "probability")]
            writer.writerow(["file", "class", "probability", *further])
        cells = [cell for label, share in classes for cell in (as_cell(label), f"{share:.6f}")]
        writer.writerow([as_cell(str(prediction.image)), *cells])
    return shown


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
    from reflux.components.core.artifacts import ARTIFACTS
    from reflux.components.registry.ledger.record import Grounds
    from reflux.components.registry.promote import challenge

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
    from reflux.components.registry.promote import approve as give

    params = registry_params()
    name = params.registry.model_name
    promotion = give(params.project.name, name, version, reason)
    if os.environ.get("PREFECT_API_URL"):
        from reflux.flows.pipeline.approval import resume

        resume(name, version, reason)
    return _show(promotion, name)


def _show(promotion: "PromotionResult", model_name: str) -> int:
    from reflux.flows.report.text import reasons, standing

    screen = console()
    screen.print(reasons(promotion))
    screen.print(f"\n{standing(promotion, model_name)}", style="bold")
    return 0 if promotion.outcome in ("promoted", "unchanged") else EXIT_REFUSED


def publish(version: int, target: str, public: bool) -> None:
    """Push a version's files to an OCI registry or the Hugging Face hub, and print how to get them.

    Args:
        version: its number.
        target: the place in the registry or on the hub.
        public: make a new repository on the hub public, or push to one that is.

    Raises:
        UserError: there is no such version, or the target does not take it.
    """
    from reflux.components.registry.publish import publish as push

    name = registry_params().registry.model_name
    published = push(name, version, target, public)
    print(f"{name} version {version} is {published.reference} ({published.files} files, {published.digest}).")
    print(f"Get it: {published.get}")


def rollback(reason: str, to: int | None) -> None:
    """Put an earlier champion back into production.

    Raises:
        ChampionMoved: someone else moved the champion at the same time.
        UserError: there is nothing to roll back to, or MLflow does not answer.
    """
    from reflux.components.registry.rollback import rollback as go_back

    params = registry_params()
    name = params.registry.model_name
    champion, rolled_back = go_back(params.project.name, name, reason, to)
    print(f"{name}: version {champion} is the champion again; version {rolled_back} was rolled back.")


def reconcile() -> None:
    """Finish or close interrupted promotions, and print which.

    Raises:
        UserError: MLflow does not answer.
    """
    from reflux.components.registry import client
    from reflux.components.registry.ledger.commit import reconcile as settle

    params = registry_params()
    settled = settle(client.connect(), params.project.name, params.registry.model_name)
    for entry in settled:
        print(printable(f"{params.registry.model_name} version {entry.version}: {entry.outcome}. {entry.why}"))
    if not settled:
        print("Nothing was interrupted: the registry is consistent.")


def history(as_json: bool) -> None:
    """Print what is in production, and below it who moved what, when and why, newest first.

    Args:
        as_json: print JSON.

    Raises:
        UserError: no version is registered, or MLflow does not answer.
    """
    from reflux.components.registry import history as registry_history
    from reflux.flows.report import text

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
    embed_mlflow()
    if (file := tracking.database()) is not None and not file.is_file():
        raise UserError("There is no model yet (this project has no mlflow.db): run `reflux run` first.")
    return params
