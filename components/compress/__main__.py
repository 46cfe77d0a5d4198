"""``python -m components.compress``: the files that ship, in fp32 proven equal to the student, in int8 compared."""

import sys
from contextlib import ExitStack
from dataclasses import asdict

from components.compress import quantize
from components.compress.choice import choose
from components.compress.ship import ship
from components.core.artifacts import atomic, write_json
from components.core.contract import SHIPPED
from components.core.images.shards import open_shard
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
    with ExitStack() as finished, progress.bar(stage.name, "files", len(SHIPPED), unit="files") as bar:
        paths = {kind: finished.enter_context(atomic(stage.out(name))) for kind, name in SHIPPED.items()}
        bound = stage.params.compress.max_logit_difference
        entries = ship(student, calibration, pixels, paths, bound, bar.advance)
        choice = choose(stage.params.compress, paths, val)
    write_json(stage.out("parity.json"), entries)
    write_json(stage.out("ships.json"), asdict(choice))
    if stage.params.compress.ships == "auto":
        sys.stdout.write(f"Note: {choice.file} ships: {choice.why}\n")
    for kind, name in SHIPPED.items():
        stage.journal.artifact(stage.out(name))
        facts = {fact: value for fact, value in entries[kind].items() if fact not in ("sha256", "n")}
        stage.journal.metrics({f"{kind}/{fact}": float(value) for fact, value in facts.items()})
    stage.journal.artifact(stage.out("parity.json"))


if __name__ == "__main__":
    run("compress", main)
