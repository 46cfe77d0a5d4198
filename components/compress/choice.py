"""Which file ships: the one that the params name, or the preferred one that validation images find as accurate."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reflux.components.compress.parity import require_int8
from reflux.components.core.contract import FILES, kind_of
from reflux.components.core.export.network import load
from reflux.components.core.export.timing import batch_of, in_turn
from reflux.components.core.images.shards import Shard
from reflux.components.core.params.sections import Compress
from reflux.components.core.significance import margin_shown, paired_score_bound

_TIMED_IMAGES = 32


@dataclass(frozen=True)
class Choice:
    """The file that ships.

    Attributes:
        kind: a key of ``FILES``.
        file: its name.
        why: for people.
    """

    kind: str
    file: str
    why: str


def choose(settings: Compress, paths: Mapping[str, Path], val: Shard) -> Choice:
    """Choose the file that ships.

    Args:
        settings: ``ships`` names it, or is ``auto``, which takes the int8 file if it surely loses no more than
            ``max_loss`` against the fp32 one: by the lower bound of their paired difference (Tango 1998). With
            ``prefer: fastest`` it must surely take less time of the processor, too.
        paths: of the files.
        val: the labeled images to compare them on; never the test split.

    Raises:
        UserError: ``ships`` names an int8 file that surely loses more than ``max_loss``, or is not the student.
    """
    if settings.ships != "auto":
        kind = kind_of(settings.ships)
        if FILES[kind].precision == "int8":
            int8, fp32 = (load(paths[each]).logits(val.images) for each in (kind, "onnx"))
            require_int8(int8, fp32, val.labels, FILES[kind].name, settings.max_loss)
        return Choice(kind, FILES[kind].name, "compress.ships names it")
    choice = smallest(_right(paths["onnx_int8"], val), _right(paths["onnx"], val), settings.max_loss)
    if settings.prefer == "smallest" or choice.kind == "onnx":
        return choice
    return fastest(choice, _times(paths["onnx_int8"], paths["onnx"], val))


def smallest(int8: npt.NDArray[np.bool_], fp32: npt.NDArray[np.bool_], max_loss: float) -> Choice:
    """The int8 file, unless it may lose more than ``max_loss``; both were right [N] on the same images."""
    bound = paired_score_bound(int8, fp32)
    kind = "onnx_int8" if bound >= -max_loss else "onnx"
    images = f"on {len(int8):,} validation images the int8 file is right on {int8.sum():,}, the fp32 one on "
    images += f"{fp32.sum():,}; it loses at most {-100 * bound:.2f} points (97.5 % confidence)"
    limit = f"and compress.max_loss is {100 * max_loss:g}"
    if kind == "onnx" and margin_shown(len(int8)) > max_loss:
        limit += f"; so few images can't show less than {100 * margin_shown(len(int8)):.2f}"
    return Choice(kind, FILES[kind].name, f"{images}, {limit}")


def fastest(choice: Choice, times: tuple[float, float, float]) -> Choice:
    """The int8 file, unless it may take as long as the fp32 one.

    Args:
        choice: of the int8 file.
        times: its processor time in multiples of the fp32 file's, and the interval of that.
    """
    middle, low, high = times
    kind = "onnx_int8" if high < 1 else "onnx"
    why = f"{choice.why}; it takes {middle:.2f} ({low:.2f} to {high:.2f}) of the fp32 file's CPU time"
    return replace(choice, kind=kind, file=FILES[kind].name, why=why)


def _times(first: Path, second: Path, val: Shard) -> tuple[float, float, float]:
    networks = [load(path, threads=1) for path in (first, second)]
    images = np.asarray(val.images[:_TIMED_IMAGES])
    return in_turn([batch_of(network.run, network.fit(images)) for network in networks]).ratio(0, to=1)


def _right(path: Path, val: Shard) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = load(path).logits(val.images).argmax(axis=1) == val.labels
    return right
