"""``reflux predict | promote | rollback | history``: the model registry, printed for a person."""

from pathlib import Path

from rich.padding import Padding
from rich.text import Text

from components.core import params as parameters
from components.core.errors import UserError
from flows.display import people
from flows.environment import embed_mlflow

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

    params = _params()
    name = params.registry.model_name
    uri = f"models:/{name}/{model}" if model.isdecimal() else f"models:/{name}@{model}"
    prediction = classify(image, uri, params.ingest.max_megapixels)
    print(f"{prediction.class_name}  ({prediction.model_name} version {prediction.version})\n")
    shown = list(prediction.probabilities.items())[:top]
    width = max(len(label) for label, _ in shown)
    for label, probability in shown:
        print(f"  {label:<{width}}  {100 * probability:6.2f} %  {'█' * round(_BAR_WIDTH * probability)}".rstrip())


def promote(version: int) -> None:
    """Decide on a version, carry the decision out, and print it with its reasons.

    Raises:
        UserError: there is no such version, or MLflow does not answer.
    """
    from components.core.artifacts import ARTIFACTS
    from components.registry.promote import challenge
    from flows.report import reasons, standing

    params = _params()
    rules = params.registry
    promotion = challenge(
        ARTIFACTS,
        rules.model_name,
        version,
        rules.gates.model_dump(exclude_none=True),
        rules.champion.margin,
        params.evaluate.bootstrap,
        params.seed,
        again=True,
    )
    console = people()
    console.print(reasons(promotion))
    console.print(f"\n{standing(promotion, rules.model_name)}", style="bold")


def rollback(reason: str) -> None:
    """Swap champion and previous.

    Raises:
        UserError: there is nothing to roll back to, or MLflow does not answer.
    """
    from components.registry.history import rollback as go_back

    name = _params().registry.model_name
    champion, rolled_back = go_back(name, reason)
    print(f"{name}: version {champion} is the champion again; version {rolled_back} was rolled back.")


def history() -> None:
    """Print every version, newest first.

    Raises:
        UserError: no version is registered, or MLflow does not answer.
    """
    from components.registry.history import history as versions

    name = _params().registry.model_name
    console = people()
    for row in versions(name):
        figures = [
            row.status,
            "" if row.accuracy is None else f"accuracy {100 * row.accuracy:.2f} %",
            "" if row.size_kb is None else f"{row.size_kb:,.1f} KB",
            f"registered {row.created.astimezone():%Y-%m-%d %H:%M}",
            *(f"@{alias}" for alias in row.aliases),
        ]
        console.print(f"{name} version {row.version}: {', '.join(filter(None, figures))}", style="bold")
        console.print(Padding(Text(row.reason), (0, 0, 1, 2)))


def _params() -> parameters.Params:
    params = parameters.load()
    if embed_mlflow().startswith("sqlite:///") and not Path(embed_mlflow().removeprefix("sqlite:///")).is_file():
        raise UserError("There is no model yet, as this checkout has no mlflow.db: `reflux run` makes both.")
    return params
