"""What the arms of ``benchmarks.throughput`` share: the recipe, the models, the first batch, and the clock."""

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.core.images.shards import Shard
from components.core.models.pixel_model import PixelModel, pixel_model
from components.core.teacher.soft_labels import digest, format_for
from components.core.training import optim
from components.core.views.augment import batch_indices, draws, render
from components.label.store import fill as fill_store

CLASSES = tuple(str(number) for number in range(10))
MEAN, STD = (0.2861,), (0.3528,)
CPU = torch.device("cpu")
SEED = 0
VIEWS = 4
AUGMENT: dict[str, Any] = {"shift": 0.075, "flip": True, "crop_scale": 1.0, "erase": 0.0}
LOSS = {"temperature": 1.0, "label_weight": 0.1, "teacher_weight": 1.0}
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
        folder: where the images and soft labels lie.
    """

    student: str
    teacher: str
    teacher_size: int
    batch_size: int
    threads: int
    folder: str


class Clock:
    """Ends the round after the asked number of steps, tells how long they took, and waits for the next round."""

    def __init__(self, answers: Any) -> None:
        self._answers, self._left, self._began = answers, 0, 0.0

    def ready(self, **facts: Any) -> None:
        """Say that all is built, and wait for the first round."""
        self._say(facts)
        self._wait()

    def __call__(self, *_: Any, **__: Any) -> None:
        self._left -= 1
        if not self._left:
            seconds = time.perf_counter() - self._began
            self._say({"seconds": seconds, "peak_mb": peak_mb()})
            self._wait()

    def _say(self, facts: dict[str, Any]) -> None:
        self._answers.write(json.dumps(facts) + "\n")
        self._answers.flush()

    def _wait(self) -> None:
        asked = sys.stdin.readline()
        if not asked:
            sys.exit()
        self._left, self._began = int(asked), time.perf_counter()


def student_of(setting: Setting) -> PixelModel:
    """The student, the same to the bit in every arm."""
    torch.manual_seed(SEED)
    return pixel_model(setting.student, CLASSES, 28, 1, MEAN, STD).train()


def teacher_of(setting: Setting) -> PixelModel:
    """The teacher; its weights are random, which makes it neither faster nor slower.

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
    """Pixels and labels of our loop's first batch, which every arm is asked for its loss of."""
    indices, _ = batch_indices(SEED, 0, len(images), setting.batch_size)
    uniform = draws(SEED, images.ids[indices], np.zeros(len(indices), np.int64))
    return render(images.images[indices], uniform, **AUGMENT, device=CPU), torch.from_numpy(images.labels[indices])


def first_loss(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    """The loss that an arm finds, its student left as it was."""
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        value = loss().item()
    model.load_state_dict(before)
    return value


def write_store(setting: Setting, images: Shard) -> None:
    """The soft labels of the first batch as the teacher has them; the others are random, which changes no speed."""
    pixels, _ = first_batch(setting, images)
    indices, _ = batch_indices(SEED, 0, len(images), setting.batch_size)
    logits = torch.from_numpy(np.random.default_rng(SEED).normal(size=(VIEWS, len(images), len(CLASSES)))).float()
    with torch.inference_mode():
        logits[0, indices] = teacher_of(setting)(pixels)
    fill_store(
        digest(setting.teacher, setting.teacher_size),
        images.ids,
        VIEWS,
        format_for(len(CLASSES), top_k=32),
        setting.batch_size,
        lambda of, views: logits[views, of],
        lambda _: None,
        kept=store_folder(setting),
    )


def store_folder(setting: Setting) -> Path:
    """Where the soft labels of a setting's teacher lie."""
    return Path(setting.folder) / f"store-{setting.teacher}-{setting.teacher_size}"


def peak_mb(process: int | str = "self") -> float:
    """A process's largest resident memory; getrusage's would be that of the process it was forked from."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
