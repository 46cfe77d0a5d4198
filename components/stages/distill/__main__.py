"""``python -m reflux.components.stages.distill``: distills the student by ``distill.method``, in its phases."""

import shutil

from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import (
    DeepMutualLearning,
    TeacherAssistant,
    targets_from,
)
from reflux.components.core.precision import computing
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import BEFORE, CHECKPOINTS, Stage, run
from reflux.components.modalities.image.models.pixel_model import parameter_count
from reflux.components.stages.distill.between import networks_between, refuse_to_grow, seed_before
from reflux.components.stages.distill.losses.register import LOSSES
from reflux.components.stages.distill.possible import refuse_few_classes, refuse_no_labels
from reflux.components.stages.distill.trainer import Trainer


def main(stage: Stage) -> None:
    """Train the student, after the networks that are to teach it.

    Raises:
        UserError: a loss with a memory bank would learn in several processes.
    """
    params, method = stage.params, stage.params.distill
    alone = [loss.name for loss in method.losses if LOSSES[loss.name].one_process]
    if alone and stage.world.size > 1:
        raise UserError(
            f"distill.method {alone[0]} keeps its memory bank in one process: set run.launcher to local, and "
            "start the stage without torchrun."
        )
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    stage.environment |= computing(device, params.student.precision, params.run.compile)
    trainer = Trainer(stage, device)
    refuse_few_classes(method.method, len(trainer.dataset.classes))
    refuse_no_labels(method, trainer.labeled)
    if isinstance(method.schedule, DeepMutualLearning):
        trainer.train_with_peers(method.schedule.peers)
        return
    networks = networks_between(method.schedule, params.student.model)
    if isinstance(method.schedule, TeacherAssistant):
        refuse_to_grow(parameter_count(trainer.teacher), networks, trainer.dataset)
    teacher = None if targets_from(method) == "store" else trainer.teacher
    for number, name in enumerate(networks, 1):
        teacher = trainer.train_before(f"{number}-{name}", name, seed_before(params.seed, number), teacher)
    trainer.train_student(teacher)
    shutil.rmtree(CHECKPOINTS / f"{stage.name}{BEFORE}", ignore_errors=True)


if __name__ == "__main__":
    run("distill", main)
