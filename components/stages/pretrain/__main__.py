"""``python -m reflux.components.stages.pretrain``: the starting weights of the teacher, and of the student."""

import sys
from pathlib import Path

from reflux.components.core.artifacts import sha256_file, write_json
from reflux.components.core.data.shards import read_dataset
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.modalities.image.models.pixel_model import PixelModel, parameter_count, save, seed_everything
from reflux.components.stages.pretrain.names import read_names
from reflux.components.stages.pretrain.pruning import prune
from reflux.components.stages.pretrain.training import Pretraining
from reflux.components.stages.pretrain.weights import pretrained, weights_file
from reflux.components.stages.pretrain.zero_shot import zero_shot_teacher

Origin = dict[str, str | int | float | None]


def main(stage: Stage) -> None:
    """Write the networks that the params name with their starting weights and the origin of these.

    A student that starts from random weights is left to the stages that train it, which seed it themselves.
    """
    params = stage.params
    pretrain, student = params.pretrain, params.student
    lessons = Pretraining(stage) if pretrain.networks else None
    seed_everything(params.seed)
    if pretrain.mode == "zero-shot":
        model, origin = asked_by_name(stage)
    else:
        model, origin = start(pretrain.model, pretrain.weights, "pretrain.weights")
    if lessons and "teacher" in pretrain.networks:
        model, origin = lessons.teach("teacher", model), origin | lessons.origin
    save(model, stage.out("model.safetensors"))
    write_json(stage.out("model.json"), origin)
    stage.journal.tags({f"origin.{key}": str(value) for key, value in origin.items()})
    folder = stage.out("student")
    for left_over in folder.glob("*"):
        left_over.unlink()
    student_origin: Origin = {"model": student.model, "weights": student.weights}
    own: PixelModel | None = None
    if student.from_weights:
        own, student_origin = start(student.model, student.weights, "student.weights")
        if student.prune:
            whole, own = parameter_count(own), prune(own, student.prune)
            left = parameter_count(own)
            student_origin |= {"pruned": student.prune, "parameters": left}
            sys.stdout.write(f"Note: {left:,} of {whole:,} parameters of {student.model} are left after pruning\n")
    if lessons and "student" in pretrain.networks:
        own, student_origin = lessons.teach("student", own), student_origin | lessons.origin
    if own:
        save(own, folder / "model.safetensors")
    write_json(folder / "model.json", student_origin)
    stage.journal.tags({f"student_origin.{key}": str(value) for key, value in student_origin.items()})
    if lessons:
        lessons.end()
    else:
        write_json(stage.out("reached.json"), [])


def asked_by_name(stage: Stage) -> tuple[PixelModel, Origin]:
    """The teacher that an image-text model becomes by the classes' names, and the origin of its weights."""
    pretrain = stage.params.pretrain
    file, classes = stage.source(Path(pretrain.classes)), read_dataset(stage.read("ingest/images.json")).classes
    model = zero_shot_teacher(pretrain.model, classes, *read_names(file, classes))
    origin: Origin = {"model": pretrain.model, "weights": pretrain.weights, "mode": pretrain.mode}
    return model, origin | {"classes": str(file), "parameters": parameter_count(model)}


def start(name: str, source: str, param: str) -> tuple[PixelModel, Origin]:
    """A network with its starting weights, and their origin; ``param`` holds the ``source``, for messages."""
    file: Path | None = weights_file(name, source, param)
    model = pretrained(name, source, file, param)
    origin: Origin = {"model": name, "weights": source, "file": file.name if file else None}
    return model, origin | {"sha256": sha256_file(file) if file else None, "parameters": parameter_count(model)}


if __name__ == "__main__":
    run("pretrain", main)
