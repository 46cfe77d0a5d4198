"""What MLflow shows of a version must be what was measured: whoever edits it there is found out."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from components.core.errors import UserError, listed
from components.registry.client import is_not_found
from components.registry.versions.logged_models import LOGGED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_SHOWN = 3


def check(mlflow: "MlflowClient", found: "ModelVersion", metrics: Mapping[str, Any]) -> None:
    """Compare a version's tags and its LoggedModel's metrics with the evaluation that is kept with its file.

    Raises:
        UserError: they differ, each named with both values.
    """
    if edited := [*_tags(found, metrics), *_metrics(mlflow, found, metrics)]:
        raise UserError(
            f"Figures of {found.name} version {int(found.version)} were edited in MLflow: {listed(edited, _SHOWN)}; "
            "set them back to what was measured, or register the model again."
        )


def _tags(found: "ModelVersion", metrics: Mapping[str, Any]) -> Iterator[str]:
    shipped = metrics["shipped"]["onnx"]
    measured = {key: str(shipped[key]) for key in ("accuracy", "size_bytes")}
    for key, value in (measured | {"test_fingerprint": metrics["test"]["fingerprint"]}).items():
        if (shown := found.tags.get(key)) != value:
            yield f"the tag {key} is {shown}, measured was {value}"


def _metrics(mlflow: "MlflowClient", found: "ModelVersion", metrics: Mapping[str, Any]) -> Iterator[str]:
    from mlflow.exceptions import MlflowException

    shipped, model_id = metrics["shipped"]["onnx"], str(found.source).removeprefix(LOGGED)
    try:
        shown = mlflow.get_logged_model(model_id).metrics or ()
    except MlflowException as error:
        if not is_not_found(error):
            raise
        yield f"the LoggedModel {model_id}, which has them, was deleted"
        return
    for metric in shown:
        value = shipped.get(metric.key.removeprefix("test/"))
        if value is not None and not math.isclose(metric.value, value, rel_tol=1e-9):
            yield f"the metric {metric.key} is {metric.value:g}, measured was {value:g}"
