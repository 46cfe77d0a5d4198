"""What every training of the stage shares: the images, their views, and who answers for them."""

from collections.abc import Callable
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from components.core.artifacts import read_json
from components.core.images.shards import Dataset, join, open_shard, read_dataset
from components.core.models.pixel_model import PixelModel, load, save, seed_everything
from components.core.runtime.checkpoint import Checkpoints
from components.core.runtime.stage import Stage
from components.core.student import new_student, save_trained, train, untrained
from components.core.teacher.ensemble import load_teacher
from components.core.teacher.hooks import teacher_outputs
from components.core.teacher.soft_labels import Indices, SoftLabels, open_store
from components.core.training.batches import TargetsOf
from components.core.training.loop import Loss, Recipe
from components.core.views.augment import views_key
from components.core.views.mixing import Views, mixed_labels, stored_augment
from components.distill.criterion import Criterion, mutual_loss, terms
from components.distill.losses.labels import mixture, share_of_labels
from components.distill.modules import Peers


class Trainer:
    """The labelled and unlabelled images of one stage's run, through the views that ``label`` was told of."""

    def __init__(self, stage: Stage, device: torch.device) -> None:
        params = stage.params
        self._stage, self._device, self._method = stage, device, params.distill
        self.dataset: Dataset = read_dataset(stage.read("ingest/dataset.json"))
        splits = (stage.read(f"ingest/shards/{split}") for split in ("train", "unlabeled", "val"))
        train_split, unlabeled, self._val = (open_shard(split, params.run.workers) for split in splits)
        self._images = join(train_split, unlabeled)
        self._labels = torch.from_numpy(self._images.labels)
        self._augment = params.student.augment.model_dump()
        self._views = Views(self._images, params.seed, self._augment)
        self._begun = 0
        self._store = stage.read("label/store")
        self._manifest = read_json(stage.read("label/manifest.json"))
        self._teacher_path = stage.read("finetune/model.safetensors")
        for further in params.distill.teachers:
            stage.source(Path(further))

    @property
    def teacher(self) -> PixelModel:
        """The teacher, or several as one, in eval mode."""
        return self._taught_by[0]

    @cached_property
    def _taught_by(self) -> tuple[PixelModel, str]:
        others, weighting = self._method.teachers, self._method.ensemble
        return load_teacher(self._teacher_path, others, weighting, self.dataset.classes, self._device)

    def before(self, name: str, network: str, teacher: PixelModel | None) -> PixelModel:
        """A network that will teach the next one, trained now or before an interruption; in eval mode.

        Args:
            name: of this training among those of the stage.
            network: its name.
            teacher: who teaches it; None for the stored soft labels.
        """
        world = self._stage.world
        checkpoints = self._stage.checkpoints("student", "distill", before=name)
        done = checkpoints.path.with_suffix(".safetensors")
        seed_everything(self._stage.params.seed)
        learner = untrained(network, self._stage.params.student.image_size, self.dataset, self._device)
        if world.broadcast(done.is_file() if world.first else None):
            if world.first:
                learner.load_state_dict(load(done).state_dict())
            world.broadcast_parameters(chain(learner.parameters(), learner.buffers()))
        else:
            self._learn(learner, teacher, checkpoints, name)
            checkpoints.clear()
            if world.first:
                save(learner, done)
        self._begun += self._stage.params.student.steps
        return learner.eval()

    def student(self, teacher: PixelModel | None) -> None:
        """Train the student, and write it.

        Args:
            teacher: who teaches it; None for the stored soft labels.
        """
        student = self._new_student()
        checkpoints = self._stage.checkpoints("student", "distill")
        rows = self._learn(student, teacher, checkpoints)
        self._save(student, rows, checkpoints)

    def among_peers(self, peers: int) -> None:
        """Train the student together with others of its kind, and write the first of them."""
        method, settings = self._method, self._stage.params.student
        student = self._new_student()
        others = [untrained(settings.model, settings.image_size, self.dataset, self._device) for _ in range(peers)]
        checkpoints = self._stage.checkpoints("student", "distill")
        loss = partial(mutual_loss, label_weight=method.label_weight, teacher_weight=method.teacher_weight)
        rows = self._train(Peers(student, others), checkpoints, self._hard, loss)
        self._save(student, rows, checkpoints)

    def _learn(
        self, student: PixelModel, teacher: PixelModel | None, checkpoints: Checkpoints, name: str | None = None
    ) -> list[dict[str, float]]:
        method = self._method
        losses = terms(method.losses, student, teacher, len(self._images), method.standardized)
        criterion = Criterion(losses, method.label_weight, method.teacher_weight)
        module = criterion.module(student)
        if teacher is None:
            return self._train(module, checkpoints, self._soft_and_hard, criterion, name=name)
        outputs = partial(teacher_outputs, teacher, criterion.teacher_layers, device=self._device)
        return self._train(module, checkpoints, self._hard, criterion, outputs, name)

    def _train(
        self,
        model: nn.Module,
        checkpoints: Checkpoints,
        targets_of: TargetsOf,
        loss: Loss,
        teacher: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
        name: str | None = None,
    ) -> list[dict[str, float]]:
        stage, params = self._stage, self._stage.params
        return train(
            model,
            Recipe.of(params.student.model_dump(), compile=params.run.compile),
            self._views,
            self._manifest["views"],
            targets_of,
            loss,
            self._val,
            self._device,
            stage.world,
            checkpoints,
            stage.journal,
            stage.name,
            teacher,
            name,
            self._begun,
        )

    def _new_student(self) -> PixelModel:
        settings, seed = self._stage.params.student, self._stage.params.seed
        weights = None if settings.weights == "random" else self._stage.read("pretrain/student/model.safetensors")
        return new_student(settings.model, weights, settings.image_size, self.dataset, seed, self._device)

    def _save(self, student: PixelModel, rows: list[dict[str, float]], checkpoints: Checkpoints) -> None:
        save_trained(student, {self._stage.name: rows}, self._stage.out("."), checkpoints, self._stage.world)

    def _hard(self, indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        mix = self._views.mix(indices, views)
        targets, known = mixed_labels(self._labels, indices, mix, len(self.dataset.classes))
        return targets, share_of_labels(known), torch.from_numpy(indices)

    def _soft_and_hard(self, indices: Indices, views: Indices) -> tuple[Tensor, ...]:
        soft = self._stored(indices, views)
        mix = self._views.mix(indices, views) if self._method.mixed_targets == "mixture" else None
        if mix is not None:
            share = torch.from_numpy(mix.share).float()
            soft = mixture(soft, self._stored(mix.partners, views), share, 1.0)
        return soft, *self._hard(indices, views)

    @cached_property
    def _stored(self) -> SoftLabels:
        augment = stored_augment(self._augment, self._method.mixed_targets)
        key = views_key(self._images.ids, self._stage.params.seed, augment)
        return open_store(self._store, self._manifest, self._taught_by[1], key, self.dataset.classes)
