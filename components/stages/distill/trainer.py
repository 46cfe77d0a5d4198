"""The stage's training runs: of the student, of the networks before it, and of its peers."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reflux.components.core.artifacts import read_json
from reflux.components.core.data.draws import permutation, views_key
from reflux.components.core.data.shards import Dataset, join, open_shard, read_dataset
from reflux.components.core.params.distill import Vkd
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.runtime.stage import Stage
from reflux.components.core.student import Phase, labels_of, new_student, save_trained, train, untrained
from reflux.components.core.teacher.ensemble import load_teacher
from reflux.components.core.teacher.soft_labels import Indices, SoftLabels, open_store
from reflux.components.core.training.balance import log_priors_for, order_for
from reflux.components.core.training.batches import TargetsOf, TrainingViews
from reflux.components.core.training.loop import Loss, Objective, Recipe, Setup, cross_entropy
from reflux.components.modalities.image.layers import teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel, load, save, seed_everything
from reflux.components.modalities.image.views.mixing import Views, mixed_labels, stored_augment
from reflux.components.stages.distill.criterion import Criterion, mutual_loss, terms
from reflux.components.stages.distill.losses.labels import mixture, share_of_labels
from reflux.components.stages.distill.modules import Peers, ProbedStudent

_AT_ONCE = 256  # images of the pass that fills memory banks


class Trainer:
    """Trains networks on the labeled and unlabeled images of the stage, in the views that ``label`` has labeled."""

    def __init__(self, stage: Stage, device: torch.device) -> None:
        params = stage.params
        self._stage, self._device, self._method = stage, device, params.distill
        self.dataset: Dataset = read_dataset(stage.read("ingest/images.json"))
        splits = (stage.read(f"ingest/shards/{split}") for split in ("train", "unlabeled", "val"))
        self._labeled, unlabeled, self._val = (open_shard(split, params.run.workers) for split in splits)
        self._images = join(self._labeled, unlabeled)
        self._labels = torch.from_numpy(self._images.labels)
        balance, labels = params.student.balance, self._images.labels
        self._balanced = order_for(balance, labels)
        self._log_priors = log_priors_for(balance, labels, len(self.dataset.classes), device)
        self._augment = params.student.augment.model_dump()
        self._views = Views(self._images, params.seed, self._augment)
        self._steps_before = 0
        self._store = stage.read("label/store")
        self._manifest = read_json(stage.read("label/manifest.json"))
        self._teacher_path = stage.read("finetune/model.safetensors")
        for path in params.distill.teachers:
            stage.source(Path(path))

    @property
    def labeled(self) -> int:
        """The number of training images with a label."""
        return len(self._labeled)

    @property
    def teacher(self) -> PixelModel:
        """The teacher, or several as one, in eval mode."""
        return self._teacher_and_hash[0]

    @cached_property
    def _teacher_and_hash(self) -> tuple[PixelModel, str]:
        others, weighting = self._method.teachers, self._method.ensemble
        return load_teacher(self._teacher_path, others, weighting, self.dataset.classes, self._device)

    def train_student(self, teacher: PixelModel | None, seed: int | None = None) -> PixelModel:
        """Train the student in its phases, with a live teacher or with None from the stored soft labels, and write it.

        Args:
            teacher: None for the stored soft labels.
            seed: of its initial weights and of the order of the images, in place of the run's; the views are the same.
        """
        student, phases, histories = self._new_student(seed), self._stage.params.phases, {}
        learn = {
            "features": partial(self._learn_features, student, teacher),
            "distill": partial(self._distill, student, teacher),
            "labels": partial(self._learn_labels, student),
        }
        *_, last = phases
        for phase, steps in phases.items():
            # A phase's last checkpoint is its result: they stay until all phases have ended.
            before = None if phase == last else phase
            checkpoints = self._stage.checkpoints("student", "distill", before=before)
            histories[phase] = learn[phase](checkpoints, name=before, order=seed, steps=steps)
            checkpoints.wait()
            self._steps_before += steps
        save_trained(student, histories, self._stage.out("."), checkpoints, self._stage.world)
        return student

    def train_before(self, name: str, network: str, seed: int, teacher: PixelModel | None) -> PixelModel:
        """Distill a network that will teach the next one, unless it was done before an interruption.

        Args:
            name: of this training run among those of the stage.
            network: its name.
            seed: of its initial weights and of the order of the images; the views are those of all.
            teacher: as for :meth:`train_student`.

        Returns:
            The network, in eval mode.
        """
        world = self._stage.world
        checkpoints = self._stage.checkpoints("student", "distill", before=name)
        file = checkpoints.path.with_suffix(".safetensors")
        seed_everything(seed)
        student = untrained(network, self._stage.params.student.image_size, self.dataset, self._device)
        if world.broadcast(file.is_file() if world.first else None):
            if world.first:
                student.load_state_dict(load(file).state_dict())
            world.broadcast_parameters(chain(student.parameters(), student.buffers()))
        else:
            self._distill(student, teacher, checkpoints, name, seed)
            checkpoints.clear()
            if world.first:
                save(student, file)
        self._steps_before += self._stage.params.student.steps
        return student.eval()

    def train_with_peers(self, peers: int) -> None:
        """Train the student together with others of its kind, without a teacher, and write it."""
        method, settings = self._method, self._stage.params.student
        student = self._new_student()
        others = [untrained(settings.model, settings.image_size, self.dataset, self._device) for _ in range(peers)]
        checkpoints = self._stage.checkpoints("student", "distill")
        loss = partial(
            mutual_loss,
            label_weight=method.label_weight,
            teacher_weight=method.teacher_weight,
            log_priors=self._log_priors,
        )
        rows = self._train(Peers(student, others), checkpoints, self._hard_targets, loss)
        save_trained(student, {self._stage.name: rows}, self._stage.out("."), checkpoints, self._stage.world)

    def _learn_features(
        self, student: PixelModel, teacher: PixelModel | None, checkpoints: Checkpoints, **more: Any
    ) -> list[dict[str, float]]:
        """Teach the backbone the teacher's features of every image, and the head the labels from the backbone's."""
        teacher = teacher or self.teacher
        (term,) = terms((Vkd(),), student, teacher)
        criterion = Criterion([term], 1.0, 1.0, self._log_priors)
        module = ProbedStudent(student, term.adapter).to(self._device)
        outputs = partial(teacher_outputs, teacher, criterion.teacher_layers, device=self._device)
        return self._train(module, checkpoints, self._hard_targets, criterion, outputs, **more)

    def _learn_labels(
        self, student: PixelModel, checkpoints: Checkpoints, name: str | None, order: int | None, steps: int
    ) -> list[dict[str, float]]:
        """Fine-tune the student on the labels alone, in views that never repeat."""
        params = self._stage.params
        views = Views(self._labeled, params.seed, self._augment)
        balanced = order_for(params.student.balance, self._labeled.labels)
        training = TrainingViews(
            views, None, labels_of(views, len(self.dataset.classes)), order=order, balanced=balanced
        )
        objective = Objective(partial(cross_entropy, log_priors=self._log_priors))
        recipe = self._recipe(steps=steps, lr=self._method.finish_lr)
        return self._run(student, training, objective, recipe, checkpoints, name)

    def _distill(
        self,
        student: PixelModel,
        teacher: PixelModel | None,
        checkpoints: Checkpoints,
        name: str | None = None,
        order: int | None = None,
        steps: int | None = None,
    ) -> list[dict[str, float]]:
        method = self._method
        losses = terms(method.losses, student, teacher, len(self._images), method.standardization)
        criterion = Criterion(losses, method.label_weight, method.teacher_weight, self._log_priors)
        module = criterion.module(student)
        run = partial(self._train, module, checkpoints, loss=criterion, name=name, order=order, steps=steps)
        if teacher is None:
            return run(self._soft_and_hard_targets)
        outputs = partial(teacher_outputs, teacher, criterion.teacher_layers, device=self._device)
        if criterion.has_banks_to_fill and checkpoints.state is None:
            criterion.fill_memories(student, self._every_image(outputs))
        return run(self._hard_targets, teacher=outputs)

    def _every_image(
        self, outputs: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> Iterator[tuple[Tensor, Tensor, Sequence[Tensor]]]:
        """The first view of every image, its index and the teacher's features of it, in batches."""
        order = permutation(self._stage.params.seed, 0, len(self._images))
        for indices in np.array_split(order, math.ceil(len(order) / _AT_ONCE)):
            pixels = self._views.pixels(indices, np.zeros_like(indices), self._device)
            yield pixels, torch.from_numpy(indices).to(self._device), outputs(pixels)[1:]

    def _train(
        self,
        model: nn.Module,
        checkpoints: Checkpoints,
        targets_of: TargetsOf,
        loss: Loss,
        teacher: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
        name: str | None = None,
        order: int | None = None,
        steps: int | None = None,
    ) -> list[dict[str, float]]:
        training = TrainingViews(
            self._views, self._manifest["views"], targets_of, teacher, order=order, balanced=self._balanced
        )
        objective = Objective(loss, loss.warmups if isinstance(loss, Criterion) else {})
        recipe = self._recipe(steps=steps or self._stage.params.student.steps)
        return self._run(model, training, objective, recipe, checkpoints, name)

    def _recipe(self, **changed: float) -> Recipe:
        """The student's recipe, with the settings of a phase."""
        params = self._stage.params
        return Recipe.of(params.student.model_dump(), compile=params.run.compile, **changed)

    def _run(
        self,
        model: nn.Module,
        training: TrainingViews,
        objective: Objective,
        recipe: Recipe,
        checkpoints: Checkpoints,
        name: str | None,
    ) -> list[dict[str, float]]:
        """Train on this stage's device, judged by its validation split, with its journal and its steps so far."""
        stage = self._stage
        phase = Phase(stage.name, stage.journal, checkpoints, name, self._steps_before)
        setup = Setup(recipe, self._device, stage.world)
        return train(model, training, objective, self._val, setup, phase)

    def _new_student(self, seed: int | None = None) -> PixelModel:
        settings, seed = self._stage.params.student, self._stage.params.seed if seed is None else seed
        weights = (
            self._stage.read("pretrain/student/model.safetensors") if self._stage.params.student_is_pretrained else None
        )
        return new_student(settings.model, weights, settings.image_size, self.dataset, seed, self._device)

    def _hard_targets(self, indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        mix = self._views.mix(indices, views)
        targets, known = mixed_labels(self._labels, indices, mix, len(self.dataset.classes))
        return targets, share_of_labels(known), torch.from_numpy(indices)

    def _soft_and_hard_targets(self, indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        soft = self._soft_labels(indices, views)
        mix = self._views.mix(indices, views) if self._method.mixed_targets == "mixture" else None
        if mix is not None:
            share = torch.from_numpy(mix.share).float()
            soft = mixture(soft, self._soft_labels(mix.partners, views), share, 1.0)
        return soft, *self._hard_targets(indices, views)

    @cached_property
    def _soft_labels(self) -> SoftLabels:
        augment = stored_augment(self._augment, self._method.mixed_targets)
        key = views_key(self._images.ids, self._stage.params.seed, augment)
        return open_store(self._store, self._manifest, self._teacher_and_hash[1], key, self.dataset.classes)
