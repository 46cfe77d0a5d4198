"""``python -m reflux.components.stages.control``: train the student without a teacher, to compare with."""

import sys
from functools import partial

from reflux.components.core.data.shards import open_shard, read_dataset
from reflux.components.core.precision import computing
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.core.student import Phase, labels_of, new_student, save_trained, train
from reflux.components.core.training.balance import log_priors_for, order_for
from reflux.components.core.training.batches import TrainingViews
from reflux.components.core.training.loop import Objective, Recipe, Setup, cross_entropy
from reflux.components.modalities.image.views.mixing import Views


def main(stage: Stage) -> None:
    """Train the student on labels alone; unlike in distillation, its views never repeat.

    Where no training image has a label, there is nothing to train on: the control is the student before its training.
    """
    params, settings = stage.params, stage.params.student
    dataset = read_dataset(stage.read("ingest/images.json"))
    images, val = (open_shard(stage.read(f"ingest/shards/{split}"), params.run.workers) for split in ("train", "val"))
    views = Views(images, params.seed, settings.augment.model_dump())
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    stage.environment |= computing(device, settings.precision, params.run.compile)
    log_priors = log_priors_for(settings.balance, images.labels, len(dataset.classes), device)
    weights = stage.read("pretrain/student/model.safetensors") if params.student_is_pretrained else None
    student = new_student(settings.model, weights, settings.image_size, dataset, params.seed, device)
    checkpoints = stage.checkpoints("student")
    if not len(images):
        if stage.world.first:
            sys.stdout.write("Note: no training image has a label: the control stays untrained.\n")
        save_trained(student, {}, stage.out("."), checkpoints, stage.world)
        return
    targets_of, balanced = labels_of(views, len(dataset.classes)), order_for(settings.balance, images.labels)
    setup = Setup(Recipe.of(settings.model_dump(), compile=params.run.compile), device, stage.world)
    rows = train(
        student,
        TrainingViews(views, None, targets_of, balanced=balanced),
        Objective(partial(cross_entropy, log_priors=log_priors)),
        val,
        setup,
        Phase(stage.name, stage.journal, checkpoints),
    )
    save_trained(student, {stage.name: rows}, stage.out("."), checkpoints, stage.world)


if __name__ == "__main__":
    run("control", main)
