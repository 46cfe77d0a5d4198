"""ONNX files in onnxruntime, on the CPU: the images as they take them, the logits that they return."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.errors import UserError
from components.core.images.preprocess import fit
from components.core.images.shards import Images, Pixels, at_once

_BATCH = 256
# Logits this close are tied: two runtimes add in different orders, and either class may come out first.
_TIE = 1e-4

Logits = npt.NDArray[np.float32]


class Network:
    """An ONNX file that takes raw pixels and returns logits.

    Args:
        path: the file.
        threads: for one run; 0 leaves the number to onnxruntime.
        spin: threads look for more work for a while before they sleep, which is quick and costs the processor's time.

    Raises:
        UserError: the file is missing, damaged, or takes something else than raw pixels.
    """

    def __init__(self, path: Path, threads: int = 0, spin: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.log_severity_level = 3  # errors only: its warnings are about the options
        with readable(path):
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        pixels, *others = self._session.get_inputs()
        sizes_known = len(pixels.shape) == 4 and all(isinstance(size, int) for size in pixels.shape[1:])
        if others or pixels.type != "tensor(uint8)" or not sizes_known:
            raise UserError(
                f"{path} takes {pixels.type} {pixels.shape}, not raw pixels uint8 [N, C, H, W]: compress it again."
            )
        self._input = pixels.name
        self.channels: int = pixels.shape[1]
        self.image_size: int = pixels.shape[2]

    def run(self, pixels: Pixels) -> Logits:
        """Logits [N, classes] of raw pixels [N, channels, image_size, image_size]."""
        logits: Logits = self._session.run(None, {self._input: pixels})[0]
        return logits

    def logits(self, images: Images) -> Logits:
        """Logits [N, classes] of stored images uint8 [N, H, W, C], a few at a time in memory."""
        size = at_once(images, _BATCH)
        batches = (np.asarray(images[begin : begin + size]) for begin in range(0, len(images), size))
        return np.concatenate([self.run(self.fit(batch)) for batch in batches])

    def fit(self, images: Pixels) -> Pixels:
        """Stored images [N, H, W, C] as this file takes them."""
        return fit(images, self.image_size, self.channels)


def fit_rows(images: Images, rows: npt.NDArray[np.int64], image_size: int, channels: int) -> Pixels:
    """:func:`fit` for some rows of a split, a few stored images at a time in memory."""
    size = at_once(images, max(1, len(rows)))
    parts = [fit(images[rows[begin : begin + size]], image_size, channels) for begin in range(0, len(rows), size)]
    return np.concatenate([fit(images[:0], image_size, channels), *parts])


def disagreements(expected: Logits, logits: Logits) -> npt.NDArray[np.intp]:
    """The rows on which two runtimes of one model, with logits [N, K], predict different classes, ties aside."""
    rows = np.arange(len(expected))
    first, second = expected.argmax(axis=1), logits.argmax(axis=1)
    return np.flatnonzero((first != second) & (expected[rows, first] - expected[rows, second] > _TIE))


def tied(logits: Logits) -> npt.NDArray[np.bool_]:
    """Rows of logits [N, K], K at least 2, whose best two are so close that runtimes may differ: [N]."""
    best: Logits = np.partition(logits, -2, axis=1)[:, -2:]
    close: npt.NDArray[np.bool_] = best[:, 1] - best[:, 0] <= _TIE
    return close


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a runtime's error about a file into one sentence for the user.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        yield
    except Exception as error:  # neither runtime's errors share a base but this
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} can't be read ({first}): run `reflux run` to make it again.") from error
