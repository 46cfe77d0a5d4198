"""Writes the files that ship: each is compared with the student in its own runtime, and those in fp32 must be equal."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

from components.compress import parity, quantize
from components.core.artifacts import sha256_file
from components.core.contract import SHIPPED
from components.core.errors import UserError
from components.core.export import program
from components.core.images.shards import Pixels
from components.core.models.pixel_model import PixelModel


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
        calibration: images [N, C, H, W] whose activations set the ranges of the int8 file.
        pixels: images [N, C, H, W] to compare on.
        paths: where to write each of ``SHIPPED``.
        bound: the largest difference of a logit; the int8 file differs by more, and is only measured.
        advance: called after each file.

    Returns:
        Each file's entry in ``parity.json``.

    Raises:
        UserError: the network can't be exported, or a file is not the student.
    """
    expected = program.forward(student, pixels)
    entries = {}
    for kind, write in writers(student, calibration).items():
        write(paths[kind])
        comparison = parity.compare(program.reload(paths[kind]), pixels, expected)
        if kind != "onnx_int8":
            parity.require(comparison, SHIPPED[kind], bound)
        entries[kind] = parity.entry(comparison, paths[kind], sha256_file(paths[kind]))
        advance(1)
    return entries


def writers(student: PixelModel, calibration: Pixels) -> dict[str, Callable[[Path], None]]:
    """List what writes each of ``SHIPPED``; it does not look at what it wrote, as :func:`ship` does.

    Raises:
        UserError: the network can't be exported; what is returned raises it too.
    """
    exporting = partial(_exporting, student.spec.name)
    with exporting():
        exported = program.export(student)
        translated = program.to_onnx(exported)
    classes = student.spec.classes

    @exporting()
    def pt2(path: Path) -> None:
        # Through memory: torch writes the file's own name into it, and ours is temporary.
        buffer = io.BytesIO()
        torch.export.save(exported, buffer)
        path.write_bytes(buffer.getbuffer())

    @exporting()
    def fp32(path: Path) -> None:
        onnx.save(program.slim(translated, classes), path)

    @exporting()
    def int8(path: Path) -> None:
        onnx.save(program.slim(quantize.int8(translated, calibration), classes), path)

    return {"pt2": pt2, "onnx": fp32, "onnx_int8": int8}


@contextmanager
def _exporting(name: str) -> Iterator[None]:
    """Turn what the exporters raise about a network into one sentence.

    Raises:
        UserError: the network can't be exported.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch, onnx and onnxruntime raise whatever an unknown operator leads them to
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"student.model = {name} can't be exported ({first}): choose another student.model in params.yaml."
        ) from error
