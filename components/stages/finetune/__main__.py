"""``python -m reflux.components.stages.finetune``: train the teacher."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reflux.components.core.artifacts import write_json
from reflux.components.core.data.shards import Dataset, Shard, join, open_other, open_shard, read_dataset
from reflux.components.core.inference import validate
from reflux.components.core.params.augment import Augment
from reflux.components.core.precision import computing
from reflux.components.core.runtime import history, progress
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import BEFORE, CHECKPOINTS, Stage, run
from reflux.components.core.training import optim
from reflux.components.core.training.balance import class_shares, class_weights_for, log_priors_for, order_for
from reflux.components.core.training.batches import TrainingViews, batches_of_views
from reflux.components.core.training.loop import Loss, Objective, Recipe, Session, Setup, cross_entropy, fit
from reflux.components.core.training.parallel import shard_of_batch
from reflux.components.modalities.image.models.pixel_model import PixelModel, adapted, load, save, seed_everything
from reflux.components.modalities.image.views.mixing import Indices, Views
from reflux.components.stages.finetune.adaptation.batches import Batches, side_by_side
from reflux.components.stages.finetune.adaptation.domains import (
    DomainNetwork,
    refuse_odd_batches,
    with_adaptation,
    with_reversal,
)
from reflux.components.stages.finetune.finished import check_finished
from reflux.components.stages.finetune.l2_sp import backbone, with_l2_sp
from reflux.components.stages.finetune.lora import inject, layers_to_adapt, merge
from reflux.components.stages.finetune.self_training import (
    Floats,
    PseudoLabels,
    Round,
    kept_round,
    labeled_by,
    sentence,
    with_pseudo_labels,
)
from reflux.components.stages.finetune.strategy import (
    PROBED,
    TRAINED,
    epochs_between_validations,
    in_effect,
    learns_from_unlabeled,
    refuse_no_labels,
    refuse_nothing_to_learn_from,
)
from reflux.components.stages.finetune.transfer import Probe, freeze_batch_norm, layer_decay_groups, linear_probe
from reflux.components.stages.finetune.unfreezing import frozen, layer_groups

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

History = list[dict[str, float]]


@dataclass(frozen=True)
class Lesson:
    """What a teacher learns from in a round.

    Attributes:
        images: with the labels to learn.
        epochs: over them and those of the source domain.
        augment: of their views.
        shares: that the classes have in an epoch [K]; None leaves that to ``finetune.balance``.
        prefix: of the names of its phases.
        begun: the steps of the rounds before it.
        source: the labeled images of the source domain, which are learned, too.
        unlabeled: the images whose features ``finetune.adaptation`` makes like the source's; None adapts none.
    """

    images: Shard
    epochs: int
    augment: Augment
    shares: Floats | None = None
    prefix: str = ""
    begun: int = 0
    source: Shard | None = None
    unlabeled: Shard | None = None

    @property
    def labeled(self) -> Shard:
        """All images with a label."""
        return join(self.images, self.source) if self.source else self.images


def main(stage: Stage) -> None:
    """Adapt the pretrained network to the images by ``finetune.strategy``, in ``finetune.rounds``."""
    params, settings = stage.params, stage.params.finetune
    device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
    stage.environment |= computing(device, settings.precision, params.run.compile)
    dataset = read_dataset(stage.read("ingest/images.json"))
    train = open_shard(stage.read("ingest/shards/train"), params.run.workers)
    val = open_shard(stage.read("ingest/shards/val"), params.run.workers)
    source = open_other(stage.read("ingest/source-domain"), "train", params.run.workers)
    refuse_no_labels(settings.strategy, len(train))
    lesson = Lesson(train, settings.epochs, settings.augment, source=source)
    if learns_from_unlabeled(settings.rounds, settings.adaptation):
        unlabeled = open_shard(stage.read("ingest/shards/unlabeled"), params.run.workers)
        refuse_nothing_to_learn_from(settings.rounds, settings.adaptation, len(unlabeled))
        if settings.adaptation != "none":
            refuse_odd_batches(settings.adaptation, settings.batch_size, settings.accumulate, stage.world.size)
            lesson = replace(lesson, unlabeled=unlabeled)
        if settings.rounds > 1:
            _self_train(stage, dataset, lesson, unlabeled, val, device)
            return
    teacher = _untaught(stage, dataset, device)
    checkpoints = stage.checkpoints("finetune")
    phases = _teach(stage, teacher, lesson, train, val, checkpoints, device)
    _write(stage, teacher, phases)
    checkpoints.clear()


def _self_train(
    stage: Stage, dataset: Dataset, lesson: Lesson, unlabeled: Shard, val: Shard, device: torch.device
) -> None:
    """Train a teacher on the labels, and in each further round one on what the last one labels; write one of them.

    Each round has its own checkpoints, which stay until all have ended: a round's last checkpoint is its result.
    """
    settings, train = stage.params.finetune, lesson.images
    shares = class_shares(settings.balance, train.labels, len(dataset.classes))
    pseudo: PseudoLabels | None = None
    rounds: list[Round] = []
    phases: dict[str, History] = {}
    for number in range(1, settings.rounds + 1):
        teacher = _untaught(stage, dataset, device)
        checkpoints = stage.checkpoints("finetune", before=f"round-{number}")
        phases |= _teach(stage, teacher, lesson, train, val, checkpoints, device)
        checkpoints.wait()
        rounds.append(Round.of(pseudo, validate(teacher, val, device, stage.world)[1]))
        kept = kept_round(rounds, len(val))
        if kept == number:
            chosen = teacher
        _tell(stage, rounds, len(unlabeled), checkpoints)
        if number == settings.rounds:
            break
        pseudo = labeled_by(teacher, unlabeled, val, shares, device, stage.world)
        if not len(pseudo.rows):
            _note(
                stage,
                f"round {number} is the last: half of its teacher's surest labels are wrong on validation images",
            )
            break
        lesson = replace(
            lesson,
            images=with_pseudo_labels(train, unlabeled, pseudo),
            epochs=settings.round_epochs,
            augment=settings.round_augment,
            shares=shares,
            prefix=f"round-{number + 1}-",
            begun=lesson.begun + _steps(stage, lesson),
        )
    _write(stage, chosen, phases, rounds, kept)
    if stage.world.first:
        shutil.rmtree(CHECKPOINTS / f"{stage.name}{BEFORE}", ignore_errors=True)


def _note(stage: Stage, text: str) -> None:
    if stage.world.first:
        sys.stdout.write(f"Note: {text}.\n")


def _tell(stage: Stage, rounds: Sequence[Round], unlabeled: int, checkpoints: Checkpoints) -> None:
    """Print what the last round reached, and record it."""
    if stage.world.first:
        _note(stage, sentence(rounds, unlabeled))
        figures = {f"round/{name}": value for name, value in asdict(rounds[-1]).items() if value is not None}
        history.to_journal(stage.journal, checkpoints, "rounds")({"step": len(rounds), **figures})


def _untaught(stage: Stage, dataset: Dataset, device: torch.device) -> PixelModel:
    """The pretrained network, with a new head unless it is a finished teacher."""
    params = stage.params
    seed_everything(params.seed)
    pretrained = load(stage.read("pretrain/model.safetensors"))
    if in_effect(params.finetune.strategy, params.distill.when) == "none":
        check_finished(pretrained.spec, dataset.classes, dataset.channels, params.pretrain.weights)
        return pretrained
    return adapted(pretrained, dataset.classes, params.finetune.image_size, dataset.channels).to(device)


def _teach(
    stage: Stage,
    teacher: PixelModel,
    lesson: Lesson,
    train: Shard,
    val: Shard,
    checkpoints: Checkpoints,
    device: torch.device,
) -> dict[str, History]:
    """Train a teacher by the strategy; returns the history of each of its phases."""
    settings, phases = stage.params.finetune, {}
    strategy = in_effect(settings.strategy, stage.params.distill.when)
    if strategy in PROBED:
        phases[f"{lesson.prefix}probe"] = _probe(stage, teacher, lesson, val, checkpoints, device)
    if strategy in TRAINED:
        if settings.freeze_batch_norm:
            freeze_batch_norm(teacher)
        phase = lesson.prefix + ("full" if strategy == "lp-ft" else strategy)
        change = _low_rank(stage, teacher) if strategy == "lora" else None
        phases[phase] = _train(stage, teacher, lesson, train, val, checkpoints, device, phase)
        if change:
            merge(change)
    return phases


def _low_rank(stage: Stage, teacher: PixelModel) -> "LoraModel":
    settings = stage.params.finetune
    change = inject(teacher, layers_to_adapt(teacher, settings.lora_targets), settings.lora_rank)
    trained = sum(parameter.numel() for parameter in teacher.parameters() if parameter.requires_grad)
    stage.journal.params({"trained_parameters": trained})
    return change


def _write(
    stage: Stage,
    teacher: PixelModel,
    phases: dict[str, History],
    rounds: Sequence[Round] = (),
    kept: int | None = None,
) -> None:
    if stage.world.first:
        save(teacher, stage.out("model.safetensors"))
        history.write(stage.out("history.parquet"), phases)
        rows = [{**asdict(each), "kept": number == kept} for number, each in enumerate(rounds, 1)]
        write_json(stage.out("rounds.json"), rows)


def _probe(
    stage: Stage, teacher: PixelModel, lesson: Lesson, val: Shard, checkpoints: Checkpoints, device: torch.device
) -> History:
    settings, params, images = stage.params.finetune, stage.params, lesson.labeled
    classes = len(teacher.spec.classes)
    probe = Probe(
        settings.probe_views,
        settings.probe_steps,
        settings.probe_lr,
        settings.weight_decay,
        settings.batch_size,
        params.seed,
        lesson.augment.model_dump(),
        class_weights_for(settings.balance, images.labels, classes, device, lesson.shares),
        log_priors_for(settings.balance, images.labels, classes, device),
    )
    label = f"{lesson.prefix}linear probe"
    with progress.bar("finetune", label, settings.probe_views * len(images)) as bar:
        report = history.to_journal(stage.journal, checkpoints, f"{lesson.prefix}probe", lesson.begun)
        return linear_probe(teacher, images, val, probe, stage.out("."), report, bar.advance)


def _train(
    stage: Stage,
    teacher: PixelModel,
    lesson: Lesson,
    train: Shard,
    val: Shard,
    checkpoints: Checkpoints,
    device: torch.device,
    phase: str,
) -> History:
    settings, params, images = stage.params.finetune, stage.params, lesson.images
    batch_size, epoch = _batch_and_epoch(stage, lesson)
    steps = lesson.epochs * epoch
    begun = lesson.begun + (settings.probe_steps if settings.strategy in PROBED else 0)
    every = epoch * epochs_between_validations(lesson.epochs)
    recipe = Recipe.of(
        settings.model_dump(), batch_size=batch_size, steps=steps, eval_every=every, compile=params.run.compile
    )
    batches = _batches(stage, lesson, batch_size, device)
    others = [lesson.source.labels] if lesson.source else []
    log_priors = log_priors_for(settings.balance, images.labels, len(teacher.spec.classes), device, *others)
    loss: Loss = partial(cross_entropy, log_priors=log_priors)
    pretrained: dict[str, nn.Parameter] = backbone(teacher.net) if settings.l2_sp else {}
    if pretrained:
        loss = with_l2_sp(loss, pretrained.values(), settings.l2_sp)
    groups = layer_decay_groups(teacher, settings.weight_decay, settings.layer_decay, exempt=pretrained)
    trained: nn.Module = teacher
    if lesson.unlabeled:
        trained = network = DomainNetwork(teacher, settings.adaptation, images.images.shape[3]).to(device)
        batches = with_reversal(batches, network, steps, settings.adaptation_weight)
        loss = with_adaptation(loss, settings.adaptation, settings.adaptation_weight)
        if network.discriminator:
            groups = optim.weight_decay_groups(network.discriminator, settings.weight_decay) + groups
    optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
    views = steps * batch_size * (1 + bool(lesson.source) + bool(lesson.unlabeled))
    with progress.bar("finetune", f"{phase} fine-tuning", views, done=checkpoints.images) as bar:
        session = Session(checkpoints, history.to_journal(stage.journal, checkpoints, phase, begun), bar.advance)
        frozen = _frozen(stage, teacher, lesson.epochs, epoch) if phase.endswith("gradual-unfreezing") else None
        setup = Setup(recipe, device, stage.world)
        return fit(trained, optimizer, batches, Objective(loss, frozen=frozen), val, setup, session, train)


def _batches(stage: Stage, lesson: Lesson, batch_size: int, device: torch.device) -> Batches:
    """Batches of the labeled images; with a source domain as many of each, and of the unlabeled ones if it adapts."""
    settings, seed, augment = stage.params.finetune, stage.params.seed, lesson.augment.model_dump()
    shard = shard_of_batch(stage.world, batch_size, "finetune.batch_size")

    def part(images: Shard, shares: Floats | None = None, from_source: bool = False) -> Batches:
        labels = torch.from_numpy(images.labels)
        balanced = None if images is lesson.unlabeled else order_for(settings.balance, images.labels, shares)

        def targets(indices: Indices, _: Indices) -> tuple[Tensor, ...]:
            flags = (torch.full((len(indices),), from_source),) if lesson.unlabeled else ()
            return (labels[indices], *flags)

        views = Views(images, seed, augment)
        return batches_of_views(TrainingViews(views, None, targets, balanced=balanced), batch_size, device, shard)

    parts = [part(lesson.images, lesson.shares)]
    parts += [part(lesson.source, from_source=True)] if lesson.source else []
    parts += [part(lesson.unlabeled)] if lesson.unlabeled else []
    return side_by_side(parts) if len(parts) > 1 else parts[0]


def _batch_and_epoch(stage: Stage, lesson: Lesson) -> tuple[int, int]:
    """The size of a batch of each domain, and the batches of an epoch."""
    batch_size = stage.params.finetune.batch_size
    if lesson.source:  # views of few images repeat next to many of the source domain
        return batch_size, max(1, len(lesson.labeled) // (2 * batch_size))
    batch_size = min(batch_size, len(lesson.images))
    return batch_size, max(1, len(lesson.images) // batch_size)


def _steps(stage: Stage, lesson: Lesson) -> int:
    """The steps that a round takes, of the probe and of training."""
    settings = stage.params.finetune
    strategy = in_effect(settings.strategy, stage.params.distill.when)
    probing = settings.probe_steps if strategy in PROBED else 0
    return probing + (lesson.epochs * _batch_and_epoch(stage, lesson)[1] if strategy in TRAINED else 0)


def _frozen(stage: Stage, teacher: PixelModel, epochs: int, epoch: int) -> Callable[[int], list[nn.Parameter]]:
    groups = layer_groups(teacher.net)
    if epochs < len(groups):
        _note(
            stage,
            f"{epochs} epochs train the upper {epochs} of {len(groups)} layer groups; the others stay as they were "
            f"pretrained unless there are at least {len(groups)} epochs",
        )
    return lambda step: frozen(groups, step, epoch)


if __name__ == "__main__":
    run("finetune", main)
