"""The stage's training runs: of the teacher, of the student, or of both."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from torch import nn

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.precision import computing
from reflux.components.core.runtime import history, progress
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import BEFORE, CHECKPOINTS, Stage
from reflux.components.core.student import labels_of, untrained
from reflux.components.core.training import optim
from reflux.components.core.training.batches import TrainingViews, batches_of_views
from reflux.components.core.training.loop import Batch, Loss, Objective, Recipe, Session, Setup, cross_entropy, fit
from reflux.components.modalities.image.models.pixel_model import PixelModel, adapted, parameter_count, seed_everything
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.pretrain import simsiam
from reflux.components.stages.pretrain.lessons import Lesson, Reached, from_source, reached, reached_in, without_labels
from reflux.components.stages.pretrain.tasks import MultiTask, loss_of, targets_of

# SimSiam's for ImageNet (section 3), and ResNet's (He et al. 2016, section 3.4) but for the cosine: SGD with momentum
# 0.9, weight decay 1e-4, no warmup.
_OPTIMIZER, _SCHEDULE, _WARMUP, _WEIGHT_DECAY = "sgd", "cosine", 0.0, 1e-4
_VALIDATIONS = 10


class Pretraining:
    """Trains networks by ``pretrain``: on all training images without labels, or on those of another dataset with them.

    Raises:
        UserError: what the mode needs is not there.
    """

    def __init__(self, stage: Stage) -> None:
        params = stage.params
        self._stage = stage
        self._lesson: Lesson = from_source(stage) if params.pretrain.dataset else without_labels(stage)
        self._reached: list[Reached] = []
        self._device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
        stage.environment |= computing(self._device, "auto", params.run.compile)

    @property
    def origin(self) -> dict[str, str | int | float | None]:
        """What the origin of the weights says of this training."""
        pretrain = self._stage.params.pretrain
        source = {"source": pretrain.dataset} if pretrain.dataset else {}
        return {"mode": pretrain.mode, "images": len(self._lesson.images), **source}

    def teach(self, role: str, model: PixelModel | None) -> PixelModel:
        """Train the teacher's or the student's network from its weights, or None for random ones of the student.

        Returns:
            The network with the weights that validation has chosen, on the CPU. Where images teach it without labels,
            it is chosen by the accuracy of its head, which learns the labels without teaching the features.

        Raises:
            UserError: the network can't take the images, or the loss is no longer finite.
        """
        stage, params, lesson = self._stage, self._stage.params, self._lesson
        settings, dataset = params.pretrain, self._lesson.dataset
        size = params.finetune.image_size if role == "teacher" else params.student.image_size
        seed_everything(params.seed)
        if model is None:
            model = untrained(params.student.model, size, dataset, self._device)
        else:
            model = adapted(model, dataset.classes, size, dataset.channels).to(self._device)
        network, batches, loss = self._task(model)
        recipe = Recipe.of(
            settings.model_dump(),
            optimizer=_OPTIMIZER,
            schedule=_SCHEDULE,
            warmup=_WARMUP,
            weight_decay=_WEIGHT_DECAY,
            eval_every=-(-settings.steps // _VALIDATIONS),
            compile=params.run.compile,
        )
        checkpoints = stage.checkpoints("pretrain", "finetune", "student", before=role)
        stage.journal.params({f"{role}_parameters": parameter_count(model), "device": str(self._device)})
        groups = optim.weight_decay_groups(network, recipe.weight_decay)
        optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
        begun = settings.steps * settings.networks.index(role)
        with progress.bar(stage.name, role, recipe.steps * recipe.batch_size, done=checkpoints.images) as bar:
            session = Session(checkpoints, history.to_journal(stage.journal, checkpoints, role, begun), bar.advance)
            setup = Setup(recipe, self._device)
            fit(network, optimizer, batches, Objective(loss), lesson.val, setup, session, lesson.labeled)
        checkpoints.wait()
        self._judge(role, model, network)
        return model.cpu()

    def _task(self, model: PixelModel) -> tuple[nn.Module, Callable[[int], Iterator[Batch]], Loss]:
        """The network to train, its batches and its loss."""
        params, settings = self._stage.params, self._stage.params.pretrain
        views = Views(self._lesson.images, params.seed, settings.augment.model_dump())
        if settings.dataset is None:
            pairs = simsiam.pairs_of_views(views, settings.batch_size, self._device)
            return simsiam.SimSiam(model).to(self._device), pairs, simsiam.loss
        targets, tasks = labels_of(views, len(self._lesson.dataset.classes)), self._lesson.tasks
        training = TrainingViews(views, None, targets_of(tasks, targets) if tasks else targets)
        batches = batches_of_views(training, settings.batch_size, self._device)
        if not tasks:
            return model, batches, cross_entropy
        return MultiTask(model, tasks).to(self._device), batches, loss_of(tasks)

    def _judge(self, role: str, model: PixelModel, network: nn.Module) -> None:
        """Print and record what each head reaches on the source's held-out images, if there is a source."""
        lesson = self._lesson
        if lesson.held_out is None:
            return
        held_out, device = lesson.held_out, self._device
        found = {"accuracy": reached(role, model, len(lesson.images), held_out, lesson.dataset.classes, device)}
        heads = [*network.heads] if isinstance(network, MultiTask) else []
        for task, head in zip(lesson.tasks, heads, strict=True):
            if own := reached_in(task, role, model, head, held_out, device):
                found[f"{task.key}_accuracy"] = own
        for name, each in found.items():
            self._reached.append(each)
            self._stage.journal.metrics({f"source/{role}_{name}": each.accuracy})
            sys.stdout.write(f"Note: {each.sentence(str(self._stage.params.pretrain.dataset))}\n")

    def end(self) -> None:
        """Write what was reached, and remove the checkpoints: a training run's last one was its result until then."""
        rows: list[dict[str, Any]] = [asdict(each) for each in self._reached]
        write_json(self._stage.out("reached.json"), rows)
        if self._lesson.held_out:
            facts = read_json(self._stage.read("ingest/pretrain-source/dataset.json"))
            self._stage.journal.dataset(facts["name"], facts["fingerprint"], facts["source"], "pretrain")
            self._stage.journal.artifact(self._stage.out("reached.json"))
        shutil.rmtree(CHECKPOINTS / f"{self._stage.name}{BEFORE}", ignore_errors=True)
