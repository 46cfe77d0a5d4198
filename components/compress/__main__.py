"""``python -m components.compress``: writes the files that ship, once each is proven equal to the student."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import torch

from components.compress import parity, quantise
from components.core import exporting, models, progress, stage
from components.core.artifacts import atomic, sha256_file, write_json
from components.core.exporting import Logits, Pixels
from components.core.pixels import resize_pixels
from components.core.shards import open_shard

FILES = {"pt2": "student.pt2", "onnx": "student.onnx", "onnx_int8": "student-int8.onnx"}
_CALIBRATION_IMAGES = _PARITY_IMAGES = 512


def main(this: stage.Stage) -> None:
    """Export, quantise, reload each file in its own runtime, compare, and only then let the files appear."""
    student = models.load(this.read("distill/model.safetensors"))
    train, val = open_shard(this.read("ingest/shards/train")), open_shard(this.read("ingest/shards/val"))
    calibration = _feed(student, quantise.sample(train.images, _CALIBRATION_IMAGES))
    pixels = _feed(student, quantise.sample(val.images, _PARITY_IMAGES))
    with torch.inference_mode():
        expected = student(torch.from_numpy(pixels)).numpy()
    entries = {}
    with ExitStack() as finished, progress.bar(this.name, "files", len(FILES), unit="files") as bar:
        paths = {kind: finished.enter_context(atomic(this.out(name))) for kind, name in FILES.items()}
        for kind, write in _writers(student, calibration).items():
            write(paths[kind])
            found = parity.compare(_reload(kind, paths[kind]), pixels, expected)
            if kind != "onnx_int8":
                parity.require(found, FILES[kind], this.params.compress.max_logit_difference)
            entries[kind] = parity.measured(found, paths[kind], sha256_file(paths[kind]))
            bar.advance(1)
    write_json(this.out("parity.json"), entries)
    for kind, name in FILES.items():
        this.journal.artifact(this.out(name))
        facts = {fact: value for fact, value in entries[kind].items() if fact not in ("sha256", "n")}
        this.journal.metrics({f"{kind}/{fact}": float(value) for fact, value in facts.items()})
    this.journal.artifact(this.out("parity.json"))


def _feed(student: models.PixelModel, images: Pixels) -> Pixels:
    """Stored images [N, H, W, C] as the student's files take them: [N, in_chans, image_size, image_size]."""
    pixels = resize_pixels(images, student.spec.image_size)
    return np.array(np.broadcast_to(pixels, (len(pixels), student.spec.in_chans, *pixels.shape[2:])))


def _writers(student: models.PixelModel, calibration: Pixels) -> dict[str, Callable[[Path], None]]:
    exported = exporting.program(student)
    translated = exporting.to_onnx(exported)
    classes = student.spec.classes

    def program(path: Path) -> None:
        # Through memory: torch writes the file's own name into it, and ours is temporary.
        buffer = io.BytesIO()
        torch.export.save(exported, buffer)
        path.write_bytes(buffer.getbuffer())

    def fp32(path: Path) -> None:
        onnx.save(exporting.slim(translated, classes), path)

    def int8(path: Path) -> None:
        onnx.save(exporting.slim(quantise.int8(translated, calibration), classes), path)

    return {"pt2": program, "onnx": fp32, "onnx_int8": int8}


def _reload(kind: str, path: Path) -> Callable[[Pixels], Logits]:
    if kind != "pt2":
        session = exporting.session(path)
        return lambda pixels: exporting.run(session, pixels)
    module = torch.export.load(path).module()

    def run(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            logits: Logits = module(torch.from_numpy(pixels)).numpy()
        return logits

    return run


if __name__ == "__main__":
    stage.run("compress", main)
