"""Detect figures of a version that were edited in MLflow."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reflux.components.core.contract import shipped
from reflux.components.core.errors import UserError, listed
from reflux.components.registry.client import if_exists
from reflux.components.registry.versions.logged_models import LOGGED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_NAMED = 3


def check(mlflow: "MlflowClient", version: "ModelVersion", metrics: Mapping[str, Any]) -> None:
    """Compare a version's tags and its LoggedModel's metrics with the evaluation that is kept with its file.

    Raises:
        UserError: they differ, each named with both values.
    """
    if edited := [*_tags(version, metrics), *_metrics(mlflow, version, metrics)]:
        raise UserError(
            f"Figures of {version.name} version {version.version} were edited in MLflow: {listed(edited, _NAMED)}; "
            "set them back to what was measured, or register the model again."
        )


def _tags(version: "ModelVersion", metrics: Mapping[str, Any]) -> Iterator[str]:
    figures = shipped(metrics)
    measured = {key: str(figures[key]) for key in ("accuracy", "size_bytes")}
    for key, value in (measured | {"test_fingerprint": metrics["test"]["fingerprint"]}).items():
        if (tag := version.tags.get(key)) != value:
            yield f"the tag {key} is {tag}, measured was {value}"


def _metrics(mlflow: "MlflowClient", version: "ModelVersion", metrics: Mapping[str, Any]) -> Iterator[str]:
    figures, model_id = shipped(metrics), str(version.source).removeprefix(LOGGED)
    model = if_exists(mlflow.get_logged_model, model_id)
    if model is None:
        yield f"the LoggedModel {model_id}, which has them, was deleted"
        return
    for metric in model.metrics or ():
        value = figures.get(metric.key.removeprefix("test/"))
        if value is not None and not math.isclose(metric.value, value, rel_tol=1e-9):
            yield f"the metric {metric.key} is {metric.value:g}, measured was {value:g}"
