"""``python -m components.compress``: writes the files that ship, once each is proven equal to the student."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import onnx
import torch

from components.compress import parity, quantise
from components.core.artifacts import atomic, sha256_file, write_json
from components.core.contract import SHIPPED
from components.core.export import program
from components.core.images.shards import Pixels, open_shard
from components.core.models import pixel_model
from components.core.runtime import progress, stage

_CALIBRATION_IMAGES = _PARITY_IMAGES = 512


def main(this: stage.Stage) -> None:
    """Export, quantise, reload each file in its own runtime, compare, and only then let the files appear."""
    student = pixel_model.load(this.read("distill/model.safetensors"))
    train, val = open_shard(this.read("ingest/shards/train")), open_shard(this.read("ingest/shards/val"))
    calibration = quantise.sample(train.images, _CALIBRATION_IMAGES, student.spec)
    pixels = quantise.sample(val.images, _PARITY_IMAGES, student.spec)
    expected = program.forward(student, pixels)
    entries = {}
    with ExitStack() as finished, progress.bar(this.name, "files", len(SHIPPED), unit="files") as bar:
        paths = {kind: finished.enter_context(atomic(this.out(name))) for kind, name in SHIPPED.items()}
        for kind, write in _writers(student, calibration).items():
            write(paths[kind])
            found = parity.compare(program.reload(paths[kind]), pixels, expected)
            if kind != "onnx_int8":
                parity.require(found, SHIPPED[kind], this.params.compress.max_logit_difference)
            entries[kind] = parity.measured(found, paths[kind], sha256_file(paths[kind]))
            bar.advance(1)
    write_json(this.out("parity.json"), entries)
    for kind, name in SHIPPED.items():
        this.journal.artifact(this.out(name))
        facts = {fact: value for fact, value in entries[kind].items() if fact not in ("sha256", "n")}
        this.journal.metrics({f"{kind}/{fact}": float(value) for fact, value in facts.items()})
    this.journal.artifact(this.out("parity.json"))


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
        onnx.save(program.slim(quantise.int8(translated, calibration), classes), path)

    return {"pt2": pt2, "onnx": fp32, "onnx_int8": int8}


if __name__ == "__main__":
    stage.run("compress", main)
