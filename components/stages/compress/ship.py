"""Writes the files that ship: each is compared with the student in its own runtime, and those in fp32 must be equal."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import FILES
from reflux.components.core.data.shards import Pixels
from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.core.export.network import MODULES, load
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.compress import parity

_COLORS = re.compile(r"\x1b\[\d+m")


def ship(
    student: PixelModel,
    calibration: Pixels,
    pixels: Pixels,
    paths: Mapping[str, Path],
    bound: float,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Export and quantize the student, and compare each file with it.

    Args:
        student: in eval mode.
        calibration: images [N, C, H, W] whose activations set the ranges of int8 files.
        pixels: images [N, C, H, W] to compare on.
        paths: where to write which of ``FILES``.
        bound: the largest difference of a logit; int8 files differ by more, and are only measured.
        advance: called after each file.

    Returns:
        Each file's entry in ``parity.json``.

    Raises:
        UserError: the network can't be exported, or a file is not the student.
    """
    expected = program.forward(student, pixels)
    entries, write = {}, writer(student, calibration)
    for kind, path in paths.items():
        write(kind, path)
        comparison = parity.compare(load(path).run, pixels, expected)
        if FILES[kind].precision == "fp32":
            parity.require(comparison, FILES[kind].name, bound)
        entries[kind] = parity.entry(comparison, path, sha256_file(path))
        advance(1)
    return entries


def writer(student: PixelModel, calibration: Pixels) -> Callable[[str, Path], None]:
    """What writes a file of ``FILES``, by its kind; it does not look at what it wrote, as :func:`ship` does.

    Raises:
        UserError: the network can't be exported; what is returned raises it too.
    """
    source = program.Source(student)
    exporting = partial(_exporting, source)
    with exporting("exported", ""):
        source.translated  # noqa: B018 - before anything is written

    def write(kind: str, path: Path) -> None:
        file = FILES[kind]
        words = (
            ("exported", "") if file.format.extra is None else (f"a file of {file.format.label}", " or compress.ships")
        )
        with exporting(*words):
            path.write_bytes(MODULES[path.suffix].make(source, calibration if file.precision == "int8" else None))

    return write


@contextmanager
def _exporting(source: program.Source, what: str, other: str) -> Iterator[None]:
    """Turn what the exporters raise about a network into one sentence: what it can't be, and what else may be chosen.

    It names the operator that an exporter or a runtime lacks, and its layer.

    Raises:
        UserError: the network can't be exported.
    """
    try:
        yield
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:  # torch, onnx and onnxruntime raise whatever an unknown operator leads them to
        first = _COLORS.sub("", (str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
        exported = vars(source).get("exported")  # if that is not what failed
        if exported and (operator := program.operator_in(f"{error} {error.__cause__}", exported)):
            first = f"{operator}: {first.split('. ')[0]}"
        name = source.student.spec.name
        raise UserError(
            f"student.model = {name} can't be {what} ({first}): choose another student.model{other} in params.yaml."
        ) from error
