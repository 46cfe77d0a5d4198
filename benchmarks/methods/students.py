"""The methods, and how a student is trained by each of them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness.training import CPU
from benchmarks.methods.outputs import TeacherOutputs
from benchmarks.methods.task import Task
from benchmarks.methods.training import AUGMENT, Indices, hard, train, untrained, views_of
from reflux.components.core.data.draws import permutation
from reflux.components.core.params.distill import METHODS, Distill
from reflux.components.core.training import loop
from reflux.components.modalities.image.layers import Layer
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.distill.between import networks_between, seed_before
from reflux.components.stages.distill.criterion import Criterion, mutual_loss, terms
from reflux.components.stages.distill.modules import Peers

STUDENTS = ("resnet8_slim", "resnet8")
CONTROL, LONGER_CONTROL = "control", "control-2x"
ENTRIES: dict[str, Any] = {"teacher-assistant": {"name": "teacher-assistant", "assistants": ["resnet8"]}}
ALL = (CONTROL, LONGER_CONTROL, *METHODS)


def params_of(method: str) -> Distill:
    """The section ``distill`` of params.yaml for a method."""
    return Distill(method=ENTRIES.get(method, method), label_weight=1.0, teacher_weight=1.0)


def compared_layers(teacher: PixelModel, methods: Sequence[str], images: int) -> list[Layer]:
    """The layers of the teacher that any of the methods compares, each once."""
    losses = [loss for name in methods if name in METHODS for loss in params_of(name).losses if loss.layer_pairs]
    compared = terms(losses, untrained(STUDENTS[0], 0), teacher, images)
    return list({str(layer): layer for term in compared for layer in term.teacher}.values())


class Students:
    """Trains one seed's students, by any method.

    Args:
        task: what they learn from.
        outputs: the teacher's, of the seed's views.
        seed: of weights, order and views.
        steps: the budget.
    """

    def __init__(self, task: Task, outputs: TeacherOutputs, seed: int, steps: int) -> None:
        self._task, self._outputs, self._seed, self._steps = task, outputs, seed, steps

    def trained(self, name: str, method: str) -> list[PixelModel]:
        """Train a student by a method; returns the networks between teacher and student, and the student."""
        student, seed = untrained(name, self._seed), self._seed
        if method in (CONTROL, LONGER_CONTROL):
            steps = self._steps * (2 if method == LONGER_CONTROL else 1)
            images, views = self._task.control, self._task.control_views
            train(student, views_of(images, views, seed), loop.Objective(hard), self._task.val, steps)
            return [student]
        distill = params_of(method)
        if method == "deep-mutual-learning":
            peers = Peers(student, [untrained(name, seed_before(seed, 1))])
            loss = partial(mutual_loss, label_weight=1.0, teacher_weight=1.0)
            self._train(peers, loop.Objective(loss), seed)
            return [student]
        outputs, chain = self._outputs, [student]
        for number, between in enumerate(networks_between(distill.schedule, name), 1):
            assistant = untrained(between, seed_before(seed, number))
            self._distill(assistant, distill, outputs, seed_before(seed, number))
            chain.insert(-1, assistant.eval())
            with tempfile.TemporaryDirectory() as folder:
                outputs = TeacherOutputs(assistant, (), self._task.images, self._task.views, seed, Path(folder))
        self._distill(student, distill, outputs, seed)
        return chain

    def _distill(self, student: PixelModel, distill: Distill, outputs: TeacherOutputs, order: int) -> None:
        task = self._task
        losses = terms(distill.losses, student, task.teacher, len(task.images), distill.standardization)
        criterion = Criterion(losses, distill.label_weight, distill.teacher_weight)
        layers = criterion.teacher_layers
        module = criterion.module(student)
        if criterion.has_banks_to_fill:
            criterion.fill_memories(student, self._first_views(outputs, layers))
        objective = loop.Objective(criterion, criterion.warmups)
        self._train(module, objective, order, partial(outputs.read, layers=layers))

    def _first_views(
        self, outputs: TeacherOutputs, layers: Sequence[Layer]
    ) -> Iterator[tuple[Tensor, Tensor, Sequence[Tensor]]]:
        images = self._task.images
        views = Views(images, self._seed, AUGMENT)
        for rows in np.array_split(permutation(self._seed, 0, len(images)), -(-len(images) // 256)):
            first = np.zeros_like(rows)
            yield views.pixels(rows, first, CPU), torch.from_numpy(rows), outputs.read(rows, first, layers)[1:]

    def _train(
        self,
        model: nn.Module,
        objective: loop.Objective,
        order: int,
        soft: Callable[[Indices, Indices], tuple[Tensor, ...]] = lambda *_: (),
    ) -> None:
        task = self._task
        train(model, views_of(task.images, task.views, self._seed, soft, order), objective, task.val, self._steps)
