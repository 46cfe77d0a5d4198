"""A registered version's files: fetched from MLflow and verified by their hashes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reflux.components.core.artifacts import read_json, sha256_file
from reflux.components.core.contract import FORMATS
from reflux.components.core.errors import UserError
from reflux.components.core.export.network import Network, load
from reflux.components.registry.versions.evaluated_run import TRAINED_ON, lineage_key

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_FILE = "model.onnx"  # of versions that do not say theirs
EVALUATION = "evaluation"
METADATA_KEY = "reflux"


@dataclass(frozen=True)
class VersionFiles:
    """A registered version's files on this machine, for as long as its context lasts."""

    number: int
    folder: Path
    sha256: str
    metadata: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return list(self.metadata["classes"])

    @property
    def file(self) -> Path:
        return self.folder / self.metadata.get("file", _FILE)

    def network(self) -> Network:
        """The version in its own runtime.

        Raises:
            UserError: that is not installed, or this release knows no such file.
        """
        if self.file.suffix not in FORMATS:
            raise UserError(
                f"Version {self.number} ships a {self.file.suffix} file, which this release of Reflux does not know: "
                "install the release that registered it."
            )
        return load(self.file)


@contextmanager
def fetch_files(version: "ModelVersion") -> Iterator[VersionFiles]:
    """Download a version's files and check them against the hash that it was registered with.

    Raises:
        UserError: a file is gone, is not the one that was evaluated, or the version was not registered by Reflux.
    """
    import mlflow
    from mlflow.models import Model

    number = int(version.version)
    name = f"{version.name} version {number}"
    expected = version.tags.get("artifact_sha256")
    if expected is None:
        raise UserError(
            f"{name} has no artifact_sha256 tag: it was not registered by Reflux; register a student with `reflux run`."
        )
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        try:
            mlflow.artifacts.download_artifacts(f"models:/{version.name}/{number}", dst_path=temporary)
        except OSError as error:
            raise UserError(f"The files of {name} can't be read ({error}): restore them, or roll back.") from None
        folder = Path(temporary)
        metadata = (Model.load(folder).metadata or {}).get(METADATA_KEY)
        if metadata is None:
            raise UserError(f"{name} does not say its classes: it was not registered by Reflux.")
        files = VersionFiles(number, folder, expected, metadata)
        path = files.file
        actual = sha256_file(path) if path.is_file() else None
        if actual != expected:
            changed = f"was changed (sha256 {str(actual)[:12]}…, registered as {expected[:12]}…)"
            state = "is gone" if actual is None else changed
            raise UserError(f"The file of {name} {state}: it is refused; restore it, or `reflux rollback`.")
        yield files


def read_evaluation(version: "ModelVersion", files: VersionFiles) -> dict[str, Any]:
    """Read the evaluation that is kept with a version's file.

    Raises:
        UserError: it is not the one that the version was registered with.
    """
    path = files.folder / EVALUATION / "metrics.json"
    if not path.is_file() or lineage_key(path, files.sha256) != version.tags.get("lineage.key"):
        raise UserError(
            f"The evaluation kept with {version.name} version {files.number} was changed since it was registered: "
            "restore it, or evaluate again (`reflux run`)."
        )
    metrics: dict[str, Any] = read_json(path)
    return metrics


def read_trained_on(version: "ModelVersion", files: VersionFiles) -> npt.NDArray[np.uint64] | None:
    """Read the ids of the images that a version was made from; None if an older release registered it.

    Raises:
        UserError: they are not those that the version was registered with.
    """
    expected = read_evaluation(version, files).get("trained_on_sha256")
    if expected is None:
        return None
    path = files.folder / EVALUATION / TRAINED_ON
    if not path.is_file() or sha256_file(path) != expected:
        raise UserError(
            f"{TRAINED_ON}, kept with {version.name} version {files.number}, is gone or was changed, so the images "
            "that the version was trained on are not known: restore the file, or `reflux rollback`."
        )
    ids: npt.NDArray[np.uint64] = np.load(path, allow_pickle=False)
    return ids
