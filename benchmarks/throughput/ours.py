"""The project's own arms of ``benchmarks.throughput``, and the bare step that is their limit."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.training import kd_criterion
from benchmarks.throughput.setting import (
    AUGMENT,
    CLASSES,
    CPU,
    LABEL_WEIGHT,
    LR,
    SEED,
    TEACHER_WEIGHT,
    TEMPERATURE,
    VIEWS,
    Clock,
    Setting,
    first_loss,
    optimizer_of,
    store_folder,
    student_of,
    teacher_of,
)
from reflux.components.core.data.shards import Shard
from reflux.components.core.runtime import progress
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.teacher.soft_labels import SoftLabels, format_for
from reflux.components.core.training import batches
from reflux.components.core.training.batches import TrainingViews, batches_of_views
from reflux.components.core.training.loop import Batch, Objective, Recipe, Session, Setup, fit, total
from reflux.components.modalities.image.layers import teacher_outputs
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.distill.losses.labels import share_of_labels
from reflux.components.stages.label.soft_labels import teacher_logits

NEVER = 10**9


def bare(setting: Setting, clock: Clock, images: Shard, compiled: bool = False, bf16: bool = False) -> None:
    """The limit: the student's own step on tensors that are in memory, against ready targets."""
    student = student_of(setting)
    optimizer = optimizer_of(student)
    fixed = [next(_stored(setting, images)(step)) for step in range(8)]
    criterion = kd_criterion(TEMPERATURE, LABEL_WEIGHT, TEACHER_WEIGHT)
    loss = first_loss(student, lambda: total(criterion(student(fixed[0].pixels), *fixed[0].targets)).mean())
    if compiled:
        student.compile()
    clock.ready(loss=loss)
    while True:
        for batch in fixed:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = student(batch.pixels)
            total(criterion(logits, *batch.targets)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            clock()


def store(
    setting: Setting, clock: Clock, images: Shard, ahead: bool = False, bf16: bool = False, compiled: bool = False
) -> None:
    """Our loop, reading soft labels from the store."""
    _fetch_ahead(ahead)
    _fit(setting, clock, images, _stored(setting, images), "bf16" if bf16 else "fp32", compiled)


def live(setting: Setting, clock: Clock, images: Shard, bf16: bool, ahead: bool = False) -> None:
    """Our loop with a live teacher; the pipeline infers in bfloat16 where the hardware has it."""
    _fetch_ahead(ahead)
    teacher = teacher_of(setting)

    @torch.no_grad()
    def in_fp32(pixels: Tensor) -> tuple[Tensor, ...]:
        return (teacher(pixels),)

    outputs = partial(teacher_outputs, teacher, (), device=CPU) if bf16 else in_fp32
    hard = partial(_labels, images)
    _fit(
        setting,
        clock,
        images,
        batches_of_views(TrainingViews(Views(images, SEED, AUGMENT), VIEWS, hard, outputs), setting.batch_size, CPU),
    )


def fill(setting: Setting, clock: Clock, images: Shard) -> None:
    """The ``label`` stage's work on each batch: views, the teacher's logits, float16."""
    teacher, size = teacher_of(setting), setting.batch_size
    format, first_view = format_for(len(CLASSES), top_k=32), np.zeros(size, np.int64)
    views = Views(images, SEED, AUGMENT)
    clock.ready()
    while True:
        for begin in range(0, len(images) - size + 1, size):
            indices = np.arange(begin, begin + size)
            format.pack(teacher_logits(indices, first_view, teacher, views, CPU))
            clock()


def _fetch_ahead(wanted: bool) -> None:
    """Fetch batches in a thread, which the loop does not do on a CPU with few images; to measure what it costs."""
    if wanted:
        batches._CACHED = 0


def _labels(images: Shard, indices: np.ndarray[Any, Any], _: Any) -> tuple[Tensor, ...]:
    labels = torch.from_numpy(images.labels)[indices]
    return labels.clamp(min=0), share_of_labels(labels), torch.from_numpy(indices)


def _stored(setting: Setting, images: Shard) -> Callable[[int], Iterator[Batch]]:
    """Batches with targets from the store, as ``distill`` makes them."""
    (folder,) = store_folder(setting).iterdir()
    soft_labels = SoftLabels(folder, len(images), VIEWS, format_for(len(CLASSES), top_k=32))

    def targets_of(indices: np.ndarray[Any, Any], views: np.ndarray[Any, Any]) -> tuple[Tensor, ...]:
        return soft_labels(indices, views), *_labels(images, indices, views)

    return batches_of_views(TrainingViews(Views(images, SEED, AUGMENT), VIEWS, targets_of), setting.batch_size, CPU)


def _fit(
    setting: Setting,
    clock: Clock,
    images: Shard,
    source: Callable[[int], Iterator[Batch]],
    precision: str = "fp32",
    compiled: bool = False,
) -> None:
    """Train in the pipeline's own loop, checkpoints, schedule and progress bar included, validation left out."""
    student = student_of(setting)
    optimizer = optimizer_of(student)
    criterion = kd_criterion(TEMPERATURE, LABEL_WEIGHT, TEACHER_WEIGHT)
    batch = next(source(0))
    loss = first_loss(student, lambda: total(criterion(student(batch.pixels), *batch.targets)).mean())
    checkpoints = Checkpoints(Path(setting.folder) / f"checkpoints-{os.getpid()}", "benchmark", every_s=60)
    with progress.bar("distill", setting.student, NEVER) as bar:

        def advance(count: int, **facts: float) -> None:
            bar.advance(count, **facts)
            clock()

        clock.ready(loss=loss)
        recipe = Recipe(NEVER, NEVER, setting.batch_size, LR, precision=precision, compile=compiled)
        session = Session(checkpoints, clock, advance)
        fit(student, optimizer, source, Objective(criterion), images, Setup(recipe, CPU), session)
