"""``python -m reflux.components.stages.compress``: the files that ship: fp32 proven equal, int8 compared."""

import shutil
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

import numpy as np
import numpy.typing as npt

from reflux.components.core.artifacts import atomic, write_json
from reflux.components.core.contract import EDGE, made
from reflux.components.core.data.shards import Shard, open_shard
from reflux.components.core.export import program
from reflux.components.core.export.network import Network, sample
from reflux.components.core.runtime import progress
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.modalities.image.models import pixel_model
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.compress import candidate
from reflux.components.stages.compress.choice import choose
from reflux.components.stages.compress.ship import ship

_CALIBRATION_IMAGES = _PARITY_IMAGES = 512


def main(stage: Stage) -> None:
    """Export and quantize the student, compare each file in its own runtime, and only then publish the files.

    Where the control is right on more validation images, it is what the files are made from.
    """
    train, val = open_shard(stage.read("ingest/shards/train")), open_shard(stage.read("ingest/shards/val"))
    seen = train if len(train) else open_shard(stage.read("ingest/shards/unlabeled"))
    student, chosen = _candidate(stage, val)
    calibration = sample(seen.images, _CALIBRATION_IMAGES, student.spec)
    pixels = sample(val.images, _PARITY_IMAGES, student.spec)
    files, edge = made(stage.params.compress.ships), stage.out(EDGE)
    shutil.rmtree(edge, ignore_errors=True)  # what shipped before
    with ExitStack() as finished, progress.bar(stage.name, "files", len(files), unit="files") as bar:
        paths = {kind: finished.enter_context(atomic(stage.out(file.name))) for kind, file in files.items()}
        bound = stage.params.compress.max_logit_difference
        entries = ship(student, calibration, pixels, paths, bound, bar.advance)
        choice = choose(stage.params.compress, paths, val)
    write_json(edge / "classes.json", list(student.spec.classes))  # in the order of the logits
    write_json(stage.out("parity.json"), entries)
    write_json(stage.out("candidate.json"), asdict(chosen))
    write_json(stage.out("ships.json"), asdict(choice))
    if chosen.trained == "labels":
        sys.stdout.write(f"Note: the control ships, as distillation did not pay: {chosen.why}.\n")
    if stage.params.compress.ships == "auto":
        sys.stdout.write(f"Note: {choice.file} ships: {choice.why}\n")
    for kind, file in files.items():
        stage.journal.artifact(stage.out(file.name))
        facts = {fact: value for fact, value in entries[kind].items() if fact not in ("sha256", "n")}
        stage.journal.metrics({f"{kind}/{fact}": float(value) for fact, value in facts.items()})
    stage.journal.artifact(stage.out("parity.json"))


def _candidate(stage: Stage, val: Shard) -> tuple[PixelModel, candidate.Candidate]:
    """The model that the files are made from."""
    student, control = (pixel_model.load(stage.read(f"{name}/model.safetensors")) for name in ("distill", "control"))
    chosen = candidate.choose(_right(student, val), _right(control, val))
    return (control if chosen.trained == "labels" else student), chosen


def _right(model: PixelModel, val: Shard) -> npt.NDArray[np.bool_]:
    """Whether a model is right on each of the labeled images [N]."""
    network = Network(partial(program.forward, model), model.spec.in_chans, model.spec.image_size)
    right: npt.NDArray[np.bool_] = network.logits(val.images).argmax(axis=1) == val.labels
    return right


if __name__ == "__main__":
    run("compress", main)
