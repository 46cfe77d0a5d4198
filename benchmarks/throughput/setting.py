"""What the arms of ``benchmarks.throughput`` share: the recipe, the networks, the first batch and the clock."""

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness.processes import status_kb
from reflux.components.core.data.draws import batch_indices, draws
from reflux.components.core.data.shards import Shard
from reflux.components.core.teacher.soft_labels import format_for
from reflux.components.core.training import optim
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.modalities.image.views.augment import render
from reflux.components.stages.label.store import fill as fill_store

CLASSES = tuple(str(number) for number in range(10))
MEAN, STD = (0.2861,), (0.3528,)
CPU = torch.device("cpu")
SEED = 0
VIEWS = 4
AUGMENT: dict[str, Any] = {"shift": 0.075, "flip": True, "crop_scale": 1.0, "erase": 0.0}
TEMPERATURE, LABEL_WEIGHT, TEACHER_WEIGHT = 1.0, 0.1, 1.0
LR, WEIGHT_DECAY = 0.01, 0.05


@dataclass(frozen=True)
class Setting:
    """What all arms of one comparison share.

    Attributes:
        student: the student's name.
        teacher: the teacher's name.
        teacher_size: pixels a side that the teacher sees.
        batch_size: images a step.
        threads: of torch.
        folder: of the images and soft labels.
    """

    student: str
    teacher: str
    teacher_size: int
    batch_size: int
    threads: int
    folder: str


class Clock:
    """Counts an arm's steps: at the end of a round it reports how long they took, and waits for the next round."""

    def __init__(self, reports: TextIO) -> None:
        self._reports, self._left, self._began = reports, 0, 0.0

    def ready(self, **facts: Any) -> None:
        """Report that all is built, and wait for the first round."""
        self._report(facts)
        self._wait()

    def __call__(self, *_: Any, **__: Any) -> None:
        self._left -= 1
        if not self._left:
            seconds = time.perf_counter() - self._began
            self._report({"seconds": seconds, "peak_mb": status_kb("self", "VmHWM") / 1024})
            self._wait()

    def _report(self, facts: dict[str, Any]) -> None:
        self._reports.write(json.dumps(facts) + "\n")
        self._reports.flush()

    def _wait(self) -> None:
        steps = sys.stdin.readline()
        if not steps:
            sys.exit()
        self._left, self._began = int(steps), time.perf_counter()


def student_of(setting: Setting) -> PixelModel:
    """The student, the same to the bit in every arm."""
    torch.manual_seed(SEED)
    return pixel_model(setting.student, CLASSES, 28, 1, MEAN, STD).train()


def teacher_of(setting: Setting) -> PixelModel:
    """The teacher, whose weights are random, which makes it neither faster nor slower.

    Its logits are small: the rounding of the store's float16 logits must not hide a difference between the arms.
    """
    torch.manual_seed(SEED + 1)
    size = setting.teacher_size
    teacher = pixel_model(setting.teacher, CLASSES, size, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()
    with torch.no_grad():
        teacher.net.get_classifier().weight.mul_(0.01)  # type: ignore[operator]
    return teacher


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The same fused AdamW for every arm."""
    return optim.optimizer([{"params": list(model.parameters())}], "adamw", LR, WEIGHT_DECAY)


def first_batch(setting: Setting, images: Shard) -> tuple[Tensor, Tensor]:
    """Pixels and labels of our loop's first batch, by whose loss the arms are compared."""
    indices, _ = batch_indices(SEED, 0, len(images), setting.batch_size)
    uniform = draws(SEED, images.ids[indices], np.zeros(len(indices), np.int64), 11)
    return render(images.images[indices], uniform, **AUGMENT, device=CPU), torch.from_numpy(images.labels[indices])


def first_loss(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    """The loss of the first batch; the student is left as it was."""
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        value = loss().item()
    model.load_state_dict(before)
    return value


def write_store(setting: Setting, images: Shard) -> None:
    """Write soft labels: the teacher's of the first batch, random ones of the others, which changes no speed."""
    pixels, _ = first_batch(setting, images)
    indices, _ = batch_indices(SEED, 0, len(images), setting.batch_size)
    logits = torch.from_numpy(np.random.default_rng(SEED).normal(size=(VIEWS, len(images), len(CLASSES)))).float()
    with torch.inference_mode():
        logits[0, indices] = teacher_of(setting)(pixels)
    fill_store(
        {"teacher": [setting.teacher, setting.teacher_size]},
        images.ids,
        VIEWS,
        format_for(len(CLASSES), top_k=32),
        setting.batch_size,
        lambda of, views: logits[views, of],
        lambda _: None,
        kept=store_folder(setting),
    )


def store_folder(setting: Setting) -> Path:
    """The folder of the soft labels of a setting's teacher."""
    return Path(setting.folder) / f"store-{setting.teacher}-{setting.teacher_size}"
