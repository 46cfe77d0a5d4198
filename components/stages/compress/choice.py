"""Which file ships: the one that the params name, or the one that validation images choose."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reflux.components.core.contract import FILES, kind_of
from reflux.components.core.data.shards import Shard
from reflux.components.core.export.network import load
from reflux.components.core.export.timing import batch_of, in_turn
from reflux.components.core.params.sections import Compress
from reflux.components.core.significance import paired_score_bound
from reflux.components.stages.compress.parity import require_int8

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
        settings: ``ships`` names it, or is ``auto``, which takes the int8 file if its accuracy is at most ``max_loss``
            below that of the fp32 one. With ``prefer: fastest`` it must surely take less time of the processor, too.
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
    """The int8 file, unless it loses more than ``max_loss``; both were right [N] on the same images.

    The loss is the measured one, not its upper bound: that is two points where a few hundred images find no loss at all
    (Tango 1998), so that a gate on the size would be passed or not by chance. The bound is in the reason.
    """
    lost = int(fp32.sum()) - int(int8.sum())
    kind = "onnx_int8" if lost <= max_loss * len(int8) else "onnx"
    why = (
        f"on {len(int8):,} validation images the int8 file is right on {int8.sum():,}, the fp32 one on {fp32.sum():,}; "
        f"a loss of {100 * lost / len(int8):.2f} points (on new images at most "
        f"{-100 * paired_score_bound(int8, fp32):.2f}, with 97.5 % confidence), where "
        f"compress.max_loss is {100 * max_loss:g}"
    )
    return Choice(kind, FILES[kind].name, why)


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
