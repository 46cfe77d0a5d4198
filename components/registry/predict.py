"""Classify image files with the model that is in production."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from reflux.components.core.errors import UserError
from reflux.components.core.export.network import Network
from reflux.components.modalities.image.files import files_below, is_picture, read_image
from reflux.components.modalities.image.pixels import UnreadableImage, open_image
from reflux.components.modalities.image.preprocess import preprocess
from reflux.components.registry import client
from reflux.components.registry.ledger import proof
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.files import fetch_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray

    from reflux.components.core.export.logits import Logits

_BATCH = 256
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: the most probable class, and the probabilities of all, the most probable first."""

    image: Path
    class_name: str
    probabilities: dict[str, float]
    model_name: str
    version: int


@dataclass(frozen=True)
class Unreadable:
    """A path without a prediction, and the reason as the end of a sentence: "<path> <reason>"."""

    path: Path
    reason: str


def find(paths: Iterable[Path]) -> tuple[list[Path], list[Unreadable]]:
    """Find the image files that are meant, each once.

    Args:
        paths: files; folders, which stand for the pictures in them at any depth; and patterns such as ``new/*.jpg``.

    Returns:
        The files in the order of the paths, and the paths that name none.
    """
    files: dict[Path, None] = {}
    nothing = []
    for path in paths:
        matches = [path] if path.exists() else [Path(name) for name in sorted(glob(str(path), recursive=True))]
        if not matches:
            nothing.append(Unreadable(path, "does not exist"))
        for match in matches:
            try:
                pictures = [f for f in files_below(match) if is_picture(f.name)] if match.is_dir() else [match]
            except OSError as error:
                nothing.append(Unreadable(Path(error.filename or match), f"can't be read ({error.strerror})"))
                continue
            files |= dict.fromkeys(pictures)
            if not pictures:
                nothing.append(Unreadable(match, "is a folder without images"))
    return list(files), nothing


@dataclass(frozen=True)
class Model:
    """A version's model in memory, all of whose files were checked before anything of them was loaded.

    Attributes:
        name, version: of the registered model.
        classes: their names, in the order of the logits.
        network: takes raw pixels uint8 [N, channels, image_size, image_size] and returns logits [N, classes].
    """

    name: str
    version: int
    classes: list[str]
    network: Network
    _stored: tuple[int, int]  # size and channels of the images that ingest stored, from which it was trained

    def predict(self, images: Sequence[Path], max_megapixels: float = 50) -> Iterator["Prediction | Unreadable"]:
        """Classify image files in turn, with the preprocessing that the model's card shows.

        Args:
            images: PNG, JPEG, WebP, BMP, TIFF or GIF files.
            max_megapixels: larger images are refused.

        Yields:
            For each file in its place, the prediction or why there is none.
        """

        def read(path: Path) -> "NDArray[np.uint8] | Unreadable":
            try:
                image, _, _ = open_image(read_image(path, max_megapixels), max_megapixels)
            except OSError as error:
                return Unreadable(path, f"can't be read ({error.strerror})")
            except UnreadableImage as error:
                return Unreadable(path, str(error))
            return preprocess(image, *self._stored, self.network.image_size, self.network.channels)

        with ThreadPoolExecutor() as pool:
            for begin in range(0, len(images), _BATCH):
                paths = images[begin : begin + _BATCH]
                found = list(pool.map(read, paths))
                pixels = [each for each in found if not isinstance(each, Unreadable)]
                logits = iter(self.network.run(np.concatenate(pixels)) if pixels else ())
                for path, each in zip(paths, found, strict=True):
                    yield each if isinstance(each, Unreadable) else self._prediction(path, next(logits))

    def _prediction(self, path: Path, logits: "Logits") -> Prediction:
        shares = softmax(logits.astype(np.float64))
        order = np.argsort(-shares, kind="stable")
        probabilities = {self.classes[i]: float(shares[i]) for i in order}
        return Prediction(path, self.classes[order[0]], probabilities, self.name, self.version)


def load_model(model_uri: str) -> Model:
    """Load a version once all of its files have the hash that it was registered with, and are signed where keys are.

    A champion must also have been promoted, by a decision whose record the registry's ledger has. The keys are those of
    :mod:`reflux.components.registry.versions.signatures`.

    Args:
        model_uri: ``models:/<name>@champion`` or ``models:/<name>/<version>``.

    Raises:
        UserError: no such model or alias exists, one of the model's files was changed, or the champion never was
            promoted.
        Unreachable: MLflow does not answer.
    """
    # No model of Reflux is a pickle, and one that someone put into the registry must not be loaded.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    mlflow = client.connect()
    with client.translate_errors(), fetch_files(version := _version(mlflow, model_uri)) as files:
        signatures.check(f"{version.name} version {version.version}", files.folder)
        if model_uri.endswith(f"@{client.CHAMPION}"):
            proof.promoted(mlflow, None, version)
        stored = files.metadata["stored_size"], files.metadata["stored_channels"]
        return Model(version.name, files.number, files.classes, files.network(), stored)


def predict(images: Sequence[Path], model_uri: str, max_megapixels: float = 50) -> Iterator["Prediction | Unreadable"]:
    """Load a model and classify image files; see :func:`load_model` and :meth:`Model.predict`."""
    return load_model(model_uri).predict(images, max_megapixels)


def _version(mlflow: "MlflowClient", model_uri: str) -> "ModelVersion":
    match = _URI.fullmatch(model_uri)
    if match is None:
        raise UserError(f"{model_uri} is not a model: write models:/NAME@champion or models:/NAME/VERSION.")
    name, alias, version = match.group("name", "alias", "version")
    return client.named(mlflow, name, alias or version)
