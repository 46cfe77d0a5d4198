"""Classify one image file with the model that is in production."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from components.core.errors import UserError
from components.core.images.pixels import UnreadableImage, decode
from components.registry import client
from components.registry.versions.files import fetch_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: the most probable class, and the probabilities of all, the most probable first."""

    class_name: str
    probabilities: dict[str, float]
    model_name: str
    version: int


def predict(image: Path, model_uri: str, max_megapixels: float = 50) -> Prediction:
    """Classify an image file, with the same preprocessing as ``ingest`` and ``evaluate``.

    Args:
        image: a PNG, JPEG, WebP or BMP file.
        model_uri: ``models:/<name>@champion`` or ``models:/<name>/<version>``.
        max_megapixels: larger images are refused.

    Raises:
        UserError: the image is unreadable, no such model or alias exists, or the model's file was changed.
        Unreachable: MLflow does not answer.
    """
    # No model of Reflux is a pickle, and one that someone put into the registry must not be loaded.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    try:
        data = image.read_bytes()
    except OSError as error:
        raise UserError(f"{image} can't be read ({error.strerror}): give the path of an image file.") from None
    mlflow = client.connect()
    with client.translate_errors(), fetch_files(version := _version(mlflow, model_uri)) as files:
        try:
            stored = decode(data, files.metadata["stored_channels"], files.metadata["stored_size"], max_megapixels)
        except UnreadableImage as error:
            raise UserError(f"{image} {error}: give a whole PNG, JPEG, WebP or BMP file.") from None
        logits = files.network().logits(stored.pixels[None])[0]
        shares = softmax(logits.astype(np.float64))
        order = np.argsort(-shares, kind="stable")
        probabilities = {files.classes[i]: float(shares[i]) for i in order}
        return Prediction(files.classes[order[0]], probabilities, version.name, files.number)


def _version(mlflow: "MlflowClient", model_uri: str) -> "ModelVersion":
    match = _URI.fullmatch(model_uri)
    if match is None:
        raise UserError(f"{model_uri} is not a model: write models:/NAME@champion or models:/NAME/VERSION.")
    name, alias, version = match.group("name", "alias", "version")
    if alias is None:
        return client.version(mlflow, name, int(version))
    number = client.aliases(mlflow, name).get(alias)
    if number is not None:
        return client.version(mlflow, name, number)
    if alias == client.CHAMPION:
        raise UserError(f"{name} has no champion yet, as no version passed its gates: `reflux history` says why.")
    raise UserError(f"{name} has no alias {alias}: `reflux history` lists the versions and their aliases.")
