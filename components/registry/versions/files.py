"""The file that ships: what it takes, what it answers, and its copy in the registry, verified by its hash."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.core.artifacts import read_json, sha256_file
from components.core.errors import UserError
from components.core.images.pixels import resize_pixels
from components.core.images.shards import Images, at_once
from components.registry.versions.evaluated_run import lineage_key

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ONNX_FILE = "model.onnx"
EVALUATION = "evaluation"
METADATA_KEY = "reflux"

_BATCH = 256


@dataclass(frozen=True)
class Contract:
    """The raw pixels a file takes: uint8 [N, channels, image_size, image_size]."""

    channels: int
    image_size: int


class Network:
    """An ONNX file that takes raw pixels and returns logits.

    Raises:
        UserError: the file is not such a network.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no base but Exception
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} is not an ONNX network ({first}): run `reflux run` to make it again.") from None
        pixels, *others = self._session.get_inputs()
        shape = pixels.shape
        if (
            others
            or pixels.type != "tensor(uint8)"
            or len(shape) != 4
            or not all(isinstance(d, int) for d in shape[1:])
        ):
            raise UserError(
                f"{path} takes {pixels.type} {shape}, not raw pixels uint8 [N, C, H, W]: compress it again."
            )
        self._name = pixels.name
        self.contract = Contract(channels=shape[1], image_size=shape[2])

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """Logits [N, classes] of stored images uint8 [N, H, W, C], brought to the size and channels the file takes."""
        parts, size = [], at_once(images, _BATCH)
        for begin in range(0, len(images), size):
            batch = self.fitted(np.asarray(images[begin : begin + size]))
            parts.append(self._session.run(None, {self._name: batch})[0])
        return np.concatenate(parts)

    def fitted(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Stored images [N, H, W, C] as the file takes them, [N, channels, image_size, image_size]."""
        pixels = resize_pixels(images, self.contract.image_size)
        have, want = pixels.shape[1], self.contract.channels
        if have == 1 and want == 3:
            return np.repeat(pixels, 3, axis=1)
        if have == 3 and want == 1:
            grey = np.tensordot(np.array([0.299, 0.587, 0.114]), pixels, axes=(0, 1))  # ITU-R BT.601, as Pillow
            return grey.round().astype(np.uint8)[:, None]
        return pixels


@dataclass(frozen=True)
class Version:
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
        return self.folder / ONNX_FILE

    def network(self) -> Network:
        return Network(self.file)


@contextmanager
def fetched(found: "ModelVersion") -> Iterator[Version]:
    """Bring a version's files here and check them against the hash it was registered with.

    Raises:
        UserError: a file is gone, is not the one that was evaluated, or the version was not registered by Reflux.
    """
    import mlflow
    from mlflow.models import Model

    number = int(found.version)
    name = f"{found.name} version {number}"
    expected = found.tags.get("artifact_sha256")
    if expected is None:
        raise UserError(
            f"{name} has no artifact_sha256 tag: it was not registered by Reflux, register it with `reflux run`."
        )
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        try:
            mlflow.artifacts.download_artifacts(f"models:/{found.name}/{number}", dst_path=temporary)
        except OSError as error:
            raise UserError(f"The files of {name} can't be read ({error}): restore them, or roll back.") from None
        folder = Path(temporary)
        path = folder / ONNX_FILE
        actual = sha256_file(path) if path.is_file() else None
        if actual != expected:
            state = (
                "is gone" if actual is None else f"was changed (sha256 {actual[:12]}…, registered as {expected[:12]}…)"
            )
            raise UserError(f"The file of {name} {state}: it is refused; restore it, or `reflux rollback`.")
        metadata = (Model.load(folder).metadata or {}).get(METADATA_KEY)
        if metadata is None:
            raise UserError(f"{name} does not say its classes: it was not registered by Reflux.")
        yield Version(number, folder, expected, metadata)


def evaluation(found: "ModelVersion", version: Version) -> dict[str, Any]:
    """The evaluation that is kept with a version's file.

    Raises:
        UserError: it is not the one that the version was registered with.
    """
    path = version.folder / EVALUATION / "metrics.json"
    if not path.is_file() or lineage_key(path, version.sha256) != found.tags.get("lineage.key"):
        raise UserError(
            f"The evaluation kept with {found.name} version {version.number} was changed since it was registered: "
            "restore it, or evaluate again (`reflux run`)."
        )
    metrics: dict[str, Any] = read_json(path)
    return metrics
