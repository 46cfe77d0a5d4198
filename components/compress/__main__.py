"""``python -m components.compress``: the files that ship, each proven equal to the student."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import onnx
import torch

from components.compress import parity, quantize
from components.core.artifacts import atomic, sha256_file, write_json
from components.core.contract import SHIPPED
from components.core.export import program
from components.core.images.shards import Pixels, open_shard
from components.core.models import pixel_model
from components.core.runtime import progress
from components.core.runtime.stage import Stage, run

_CALIBRATION_IMAGES = _PARITY_IMAGES = 512


def main(stage: Stage) -> None:
    """Export and quantize the student, compare each file in its own runtime, and only then publish the files."""
    student = pixel_model.load(stage.read("distill/model.safetensors"))
    train, val = open_shard(stage.read("ingest/shards/train")), open_shard(stage.read("ingest/shards/val"))
    calibration = quantize.sample(train.images, _CALIBRATION_IMAGES, student.spec)
    pixels = quantize.sample(val.images, _PARITY_IMAGES, student.spec)
    expected = program.forward(student, pixels)
    entries = {}
    with ExitStack() as finished, progress.bar(stage.name, "files", len(SHIPPED), unit="files") as bar:
        paths = {kind: finished.enter_context(atomic(stage.out(name))) for kind, name in SHIPPED.items()}
        for kind, write in _writers(student, calibration).items():
            write(paths[kind])
            comparison = parity.compare(program.reload(paths[kind]), pixels, expected)
            if kind != "onnx_int8":
                parity.require(comparison, SHIPPED[kind], stage.params.compress.max_logit_difference)
            entries[kind] = parity.entry(comparison, paths[kind], sha256_file(paths[kind]))
            bar.advance(1)
    write_json(stage.out("parity.json"), entries)
    for kind, name in SHIPPED.items():
        stage.journal.artifact(stage.out(name))
        facts = {fact: value for fact, value in entries[kind].items() if fact not in ("sha256", "n")}
        stage.journal.metrics({f"{kind}/{fact}": float(value) for fact, value in facts.items()})
    stage.journal.artifact(stage.out("parity.json"))


def _writers(student: pixel_model.PixelModel, calibration: Pixels) -> dict[str, Callable[[Path], None]]:
    exported = program.export(student)
    translated = program.to_onnx(exported)
    classes = student.spec.classes

    def pt2(path: Path) -> None:
        # Through memory: torch writes the file's own name into it, and ours is temporary.
        buffer = io.BytesIO()
        torch.export.save(exported, buffer)
        path.write_bytes(buffer.getbuffer())

    def fp32(path: Path) -> None:
        onnx.save(program.slim(translated, classes), path)

    def int8(path: Path) -> None:
        onnx.save(program.slim(quantize.int8(translated, calibration), classes), path)

    return {"pt2": pt2, "onnx": fp32, "onnx_int8": int8}


if __name__ == "__main__":
    run("compress", main)
