"""``python -m components.distill``: trains the student by the methods and in the order asked for."""

import shutil

from components.core.errors import UserError
from components.core.images.shards import Dataset
from components.core.models.pixel_model import network, parameter_count
from components.core.params.distill import BornAgain, DeepMutualLearning, Schedule, TeacherAssistant
from components.core.runtime import stage
from components.core.runtime.device import resolve_device
from components.distill.losses.register import LOSSES
from components.distill.trainer import Trainer


def main(this: stage.Stage) -> None:
    """Train the student, after those that are to teach it."""
    params, method = this.params, this.params.distill
    remembering = [loss.name for loss in method.losses if LOSSES[loss.name].memory]
    if this.world.size > 1 and remembering:
        raise UserError(
            f"distill.method {remembering[0]} keeps its memory bank in one process: set run.launcher to local."
        )
    trainer = Trainer(this, resolve_device(params.run.device, params.run.threads, params.run.deterministic))
    if isinstance(method.schedule, DeepMutualLearning):
        trainer.among_peers(method.schedule.peers)
        return
    teacher = trainer.teacher
    between = networks_between(method.schedule, params.student.model)
    if isinstance(method.schedule, TeacherAssistant):
        refuse_to_grow(parameter_count(teacher), between, trainer.dataset)
    who = None if method.targets_from == "store" else teacher
    for number, name in enumerate(between, 1):
        who = trainer.before(f"{number}-{name}", name, who)
    trainer.student(who)
    shutil.rmtree(stage.CHECKPOINTS / f"{this.name}{stage.BEFORE}", ignore_errors=True)


def networks_between(schedule: Schedule | None, student: str) -> list[str]:
    """The names of the networks that learn from the teacher and teach the student, in order."""
    match schedule:
        case TeacherAssistant():
            return list(schedule.assistants)
        case BornAgain():
            return [student] * (schedule.generations - 1)
    return []


def refuse_to_grow(parameters: int, assistants: list[str], dataset: Dataset) -> None:
    """Check that each assistant is no larger than who teaches it.

    Args:
        parameters: of the teacher.
        assistants: names of networks, the teacher's own first.
        dataset: what they learn.

    Raises:
        UserError: one is larger.
    """
    taught_by = "the teacher"
    for name in assistants:
        own = parameter_count(network(name, len(dataset.classes), dataset.channels))
        if own > parameters:
            raise UserError(
                f"The teacher assistant {name} has {own:,} parameters, more than {taught_by} with {parameters:,}: name "
                "a smaller network in distill.method's assistants, or order them from large to small."
            )
        taught_by, parameters = name, own


if __name__ == "__main__":
    stage.run("distill", main)
