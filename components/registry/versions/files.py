"""A registered version's files: fetched from MLflow and verified by their hashes."""

import hashlib
import json
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
FILES_SHA256 = "files_sha256"
BY_DOWNLOAD = "registered_model_meta"  # MLflow adds it to the files that it hands out


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


def hash_files(folder: Path) -> str:
    """Hash a folder of MLflow with all files in it, ``MLmodel`` and code included: their paths and sha256, as JSON.

    What is no regular file has no hash, so that a folder with a link is never the one that was registered.
    """
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path) if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    files.pop(BY_DOWNLOAD, None)
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


@contextmanager
def fetch_files(version: "ModelVersion") -> Iterator[VersionFiles]:
    """Download a version's files and check all of them against the hash that it was registered with.

    Nothing of them is read, loaded or imported before.

    Raises:
        UserError: a file is gone, was changed or added, or the version was not registered by Reflux.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    number = int(version.version)
    name = f"{version.name} version {number}"
    expected, all_expected = version.tags.get("artifact_sha256"), version.tags.get(FILES_SHA256)
    if expected is None or all_expected is None:
        raise UserError(
            f"{name} has no tags artifact_sha256 and {FILES_SHA256}: it was not registered by Reflux; register a "
            "student with `reflux run`."
        )
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        try:
            mlflow.artifacts.download_artifacts(f"models:/{version.name}/{number}", dst_path=temporary)
        except OSError as error:
            raise UserError(f"The files of {name} can't be read ({error}): restore them, or roll back.") from None
        except MlflowException as error:
            if "outside the artifact directory" not in str(error):
                raise
            raise UserError(f"A file of {name} is a link: it is refused; restore it, or `reflux rollback`.") from None
        folder = Path(temporary)
        actual = hash_files(folder)
        if actual != all_expected:
            raise UserError(
                f"A file of {name} was changed, added or removed (all files have sha256 {actual[:12]}…, registered was "
                f"{all_expected[:12]}…): it is refused; restore the files, or `reflux rollback`."
            )
        metadata = (Model.load(folder).metadata or {}).get(METADATA_KEY)
        if metadata is None:
            raise UserError(f"{name} does not say its classes: it was not registered by Reflux.")
        files = VersionFiles(number, folder, expected, metadata)
        path = files.file
        if not path.is_file() or sha256_file(path) != expected:
            raise UserError(
                f"The tag artifact_sha256 of {name} is not the hash of its file: someone edited it in MLflow; set it "
                "back, or `reflux rollback`."
            )
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
