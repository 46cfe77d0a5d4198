"""Files in their runtimes, on the CPU: the images as they take them, the logits that they return."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import getfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from reflux.components.core.contract import FORMATS
from reflux.components.core.data.shards import Images, Pixels, at_once
from reflux.components.core.errors import UserError
from reflux.components.core.export.formats import executorch, litert, onnx, openvino, pt2
from reflux.components.core.export.logits import Logits
from reflux.components.modalities.image.preprocess import fit

if TYPE_CHECKING:
    from reflux.components.core.export.program import Source
    from reflux.components.modalities.image.models.pixel_model import ModelSpec

_BATCH = 256
Run = Callable[[Pixels], Logits]


class Format(Protocol):
    """What a module of :mod:`reflux.components.core.export.formats` has.

    Attributes:
        REQUIREMENTS: the packages that it takes to run such a file.
    """

    @property
    def REQUIREMENTS(self) -> tuple[str, ...]: ...

    def make(self, source: "Source", calibration: Pixels | None) -> bytes:
        """Make a file of a student.

        Args:
            source: the student.
            calibration: images [N, C, H, W] whose activations set the ranges of an int8 file; None makes an fp32 one.
        """
        ...

    def load(self, path: Path, threads: int) -> tuple[Run, str, list[int | str]]:
        """Open a file.

        Args:
            path: of the file.
            threads: for one run; 0 leaves the number to the runtime. Those of a given number sleep at once when they
                have nothing to do, so that no time is charged to others.

        Returns:
            What runs it, and the type and the shape of what it takes; sizes that are free are names.
        """
        ...


MODULES: dict[str, Format] = {".pt2": pt2, ".onnx": onnx, ".pte": executorch, ".tflite": litert, ".zip": openvino}


def code_of(suffix: str) -> Path:
    """The file of a format's module.

    The smoke test runs it apart from Reflux. Where MLflow has no flavor for the format, models bring a copy, which then
    has a function ``_load_pyfunc``.
    """
    return Path(getfile(MODULES[suffix].load))


@dataclass(frozen=True)
class Network:
    """A file that takes raw pixels and returns logits.

    Attributes:
        run: raw pixels uint8 [N, channels, image_size, image_size] to logits [N, classes].
        channels, image_size: that it takes.
    """

    run: Run
    channels: int
    image_size: int

    def logits(self, images: Images) -> Logits:
        """Logits [N, classes] of stored images uint8 [N, H, W, C], a few at a time in memory."""
        size = at_once(images, _BATCH)
        batches = (np.asarray(images[begin : begin + size]) for begin in range(0, len(images), size))
        return np.concatenate([self.run(self.fit(batch)) for batch in batches])

    def fit(self, images: Pixels) -> Pixels:
        """Stored images [N, H, W, C] as this file takes them."""
        return fit(images, self.image_size, self.channels)


def load(path: Path, threads: int = 0) -> Network:
    """Open a file in its own runtime; see :meth:`Format.load`.

    Raises:
        UserError: its runtime is not installed, or the file is missing, damaged, or takes something else than raw
            pixels.
    """
    FORMATS[path.suffix].installed(str(path))
    with _readable(path):
        run, dtype, shape = MODULES[path.suffix].load(path, threads)
    if dtype != "uint8" or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise UserError(f"{path} takes {dtype} {shape}, not raw pixels uint8 [N, C, H, W]: compress it again.")
    return Network(run, int(shape[1]), int(shape[2]))


def fit_rows(images: Images, rows: npt.NDArray[np.int64], image_size: int, channels: int) -> Pixels:
    """:func:`fit` for some rows of a split, a few stored images at a time in memory."""
    size = at_once(images, max(1, len(rows)))
    parts = [fit(images[rows[begin : begin + size]], image_size, channels) for begin in range(0, len(rows), size)]
    return np.concatenate([fit(images[:0], image_size, channels), *parts])


def sample(images: Images, count: int, spec: "ModelSpec") -> Pixels:
    """At most ``count`` images, spread evenly over the split, as a model's files take them: [n, C, H, W]."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
    return fit_rows(images, rows, spec.image_size, spec.in_chans)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn a runtime's error about a file into one sentence for the user.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        yield
    except Exception as error:  # the runtimes' errors share no base but this
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} can't be read ({first}): run `reflux run` to make it again.") from error
