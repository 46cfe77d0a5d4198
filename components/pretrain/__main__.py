"""``python -m components.pretrain``: the starting weights of the teacher, and of the student."""

from pathlib import Path

from components.core.artifacts import sha256_file, write_json
from components.core.models.pixel_model import PixelModel, parameter_count, save, seed_everything
from components.core.runtime import stage
from components.pretrain.weights import pretrained, weights_file


def main(this: stage.Stage) -> None:
    """Write the networks that the params name with the weights asked for, and their origin.

    A student whose weights are random is left to the stages that train it: they start from their own seed.
    """
    pretrain, student = this.params.pretrain, this.params.student
    seed_everything(this.params.seed)
    model, origin = start(pretrain.model, pretrain.weights, "pretrain.weights")
    save(model, this.out("model.safetensors"))
    write_json(this.out("model.json"), origin)
    this.journal.tags({f"origin.{key}": str(value) for key, value in origin.items()})
    folder = this.out("student")
    for left_over in folder.glob("*"):
        left_over.unlink()
    of_student: dict[str, str | int | None] = {"model": student.model, "weights": "random"}
    if student.weights != "random":
        model, of_student = start(student.model, student.weights, "student.weights")
        save(model, folder / "model.safetensors")
    write_json(folder / "model.json", of_student)
    this.journal.tags({f"student_origin.{key}": str(value) for key, value in of_student.items()})


def start(name: str, source: str, param: str) -> tuple[PixelModel, dict[str, str | int | None]]:
    """A network with its starting weights, and where they are from.

    Args:
        name: timm's name, or one of ``SMALL_NETS``.
        source: of the weights.
        param: that says so, for what is said when they can't be had.
    """
    file: Path | None = weights_file(name, source, param)
    model = pretrained(name, source, file, param)
    origin: dict[str, str | int | None] = {"model": name, "weights": source, "file": file.name if file else None}
    return model, origin | {"sha256": sha256_file(file) if file else None, "parameters": parameter_count(model)}


if __name__ == "__main__":
    stage.run("pretrain", main)
