"""The networks of Hinton, Vinyals and Dean 2015, section 3: how they are trained, and what is measured of them."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.harness.images import SIZE, part
from benchmarks.harness.training import CPU, kd_criterion, train
from benchmarks.hinton_mnist.paper import TEMPERATURES, WIDTHS
from reflux.components.core.data.shards import Shard
from reflux.components.core.training import optim
from reflux.components.core.training.batches import TrainingViews, batches_of_views
from reflux.components.core.training.loop import Recipe, cross_entropy
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.modalities.image.views.mixing import Views

# Twice as fast, on CPUs that have it; weights, losses and what is measured are in single precision anyway.
PRECISION = "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"
CLASSES = tuple("0123456789")
STILL = {"shift": 0.0, "flip": False, "crop_scale": 1.0, "erase": 0.0}
JITTER = {**STILL, "shift": 2 / 28}
LONGEST_WEIGHTS = 15**0.5  # of a unit's incoming weights; Hinton et al. 2012, appendix A, has 15 as the squared length
UNSEEN, ONLY = 3, (7, 8)


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Attributes:
        net: its name in ``SMALL_NETS``.
        epochs: over the images that it is given.
        lr: the peak of the learning rate.
        temperature: of the soft targets.
        label_weight: weight of the hard targets.
        batch_size: images a step.
    """

    net: str
    epochs: int
    lr: float
    temperature: float = 1.0
    label_weight: float = 1.0
    batch_size: int = 256


TEACHER = Settings("mlp_1200_dropout", epochs=150, lr=2e-3)
STUDENT = Settings("mlp_800", epochs=20, lr=1e-3)
DISTILLED = Settings("mlp_800", epochs=60, lr=3e-3, temperature=20.0)
NARROW = replace(DISTILLED, epochs=20)
PARTIAL = replace(DISTILLED, label_weight=0.0)  # hard targets would teach that there is no 3


def train_network(
    settings: Settings, images: Shard, seed: int, soft: Tensor | None = None, augment: dict[str, Any] = STILL
) -> PixelModel:
    """Train a network from scratch: alone, or from soft targets.

    Args:
        settings: how to train it.
        images: the images it learns from.
        seed: of its weights, of the order of the images and of their views.
        soft: the teacher's logits of the images [N, 10]; None for hard targets alone.
        augment: how views are drawn.
    """
    torch.manual_seed(seed)
    model = pixel_model(settings.net, CLASSES, SIZE, 1, (0.0,), (1.0,))
    labels, known = torch.from_numpy(images.labels), torch.ones(settings.batch_size)
    loss = cross_entropy if soft is None else kd_criterion(settings.temperature, settings.label_weight)

    def targets_of(indices: npt.NDArray[np.int64], _: Any) -> tuple[Tensor, ...]:
        hard = labels[indices]
        return (hard,) if soft is None else (soft[indices], hard, known, torch.from_numpy(indices))

    steps = settings.epochs * len(images) // settings.batch_size
    optimizer = optim.optimizer([{"params": list(model.parameters())}], "adamw", settings.lr, 0.0)
    if "dropout" in settings.net:
        optimizer.register_step_post_hook(lambda *_: shorten(model))
    train(
        model,
        optimizer,
        batches_of_views(TrainingViews(Views(images, seed, augment), None, targets_of), settings.batch_size, CPU),
        loss,
        part(images, slice(500)),  # validated once, at the end: it chooses nothing
        Recipe(steps, steps, settings.batch_size, settings.lr, warmup=0.05, precision=PRECISION),
    )
    return model


@torch.no_grad()
def shorten(model: nn.Module) -> None:
    """Scale back the incoming weights of hidden units that have grown too long."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.renorm_(2, 0, LONGEST_WEIGHTS)


@torch.inference_mode()
def logits_of(model: PixelModel, images: Shard) -> Tensor:
    """Logits [N, 10] in single precision, on any machine."""
    pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2)
    return torch.cat([model.eval()(chunk) for chunk in pixels.split(2000)])


def errors(logits: Tensor, labels: npt.NDArray[np.int64], raised: float = 0.0, classes: tuple[int, ...] = ()) -> int:
    """The number of wrong predictions once the bias of some classes is raised."""
    moved = logits.clone()
    moved[:, list(classes)] += raised
    return int((moved.argmax(1).numpy() != labels).sum())


def best_raise(logits: Tensor, labels: npt.NDArray[np.int64], classes: tuple[int, ...]) -> float:
    """The raise of some classes' bias, from -15 to 15, that makes the fewest errors."""
    return min(
        (tenth / 10 for tenth in range(-150, 151)), key=lambda by: (errors(logits, labels, by, classes), abs(by))
    )


def missing_classes(
    images: Shard, soft: Tensor, test: Shard, kept: npt.NDArray[np.bool_], classes: tuple[int, ...], seed: int
) -> tuple[Tensor, float]:
    """Distill from some of the images; returns the logits of the test images, and how far to raise some classes."""
    transfer_set = part(images, kept)
    # As many steps as with the whole set: a sixth of the images would otherwise get a sixth of the training.
    settings = replace(PARTIAL, epochs=round(PARTIAL.epochs * len(images) / len(transfer_set)))
    student = train_network(settings, transfer_set, seed, soft[torch.from_numpy(kept)])
    return logits_of(student, test), best_raise(logits_of(student, images), images.labels, classes)


def run(images: Shard, test: Shard, seed: int) -> dict[str, float]:
    """Run all of section 3 with one seed: the figures of ``PAPER``, and errors by width and temperature."""
    figures: dict[str, float] = {}
    began = time.monotonic()

    def note(**new: float) -> None:
        figures.update(new)
        text = ", ".join(f"{name} {value:g}" for name, value in new.items())
        print(f"seed {seed}, {time.monotonic() - began:5.0f} s: {text}", flush=True)

    labels, threes = test.labels, test.labels == UNSEEN
    teacher = train_network(TEACHER, images, seed, augment=JITTER)
    note(teacher_errors=errors(logits_of(teacher, test), labels))
    note(student_errors=errors(logits_of(train_network(STUDENT, images, seed), test), labels))
    soft = logits_of(teacher, images).clone()
    note(distilled_errors=errors(logits_of(train_network(DISTILLED, images, seed, soft), test), labels))

    logits, by = missing_classes(images, soft, test, images.labels != UNSEEN, (UNSEEN,), seed)
    for name, raised in (("", 0.0), ("_bias", by)):
        all_wrong = errors(logits, labels, raised, (UNSEEN,))
        others = errors(logits[torch.from_numpy(~threes)], labels[~threes], raised, (UNSEEN,))
        note(
            **{
                f"distilled_without_3{name}_errors": all_wrong,
                f"distilled_without_3{name}_errors_on_3": all_wrong - others,
            }
        )
    note(distilled_without_3_raise=by)

    logits, by = missing_classes(images, soft, test, np.isin(images.labels, ONLY), ONLY, seed)
    note(only_7_8_error_rate=100 * errors(logits, labels) / len(labels))
    note(only_7_8_bias_error_rate=100 * errors(logits, labels, by, ONLY) / len(labels), only_7_8_raise=by)

    for width in WIDTHS:
        for temperature in TEMPERATURES:
            settings = replace(NARROW, net=f"mlp_{width}", temperature=temperature)
            wrong = errors(logits_of(train_network(settings, images, seed, soft), test), labels)
            note(**{f"errors_{width}_units_t{temperature:g}": wrong})
    note(seconds=time.monotonic() - began)
    return figures
