"""The peers' arms of ``benchmarks.throughput``: torchdistill, timm's task, and a loop written by hand."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler, default_collate
from torchvision.transforms import v2

from benchmarks.harness.results import ROOT
from benchmarks.throughput.setting import (
    CLASSES,
    CPU,
    LABEL_WEIGHT,
    LR,
    TEACHER_WEIGHT,
    TEMPERATURE,
    WEIGHT_DECAY,
    Clock,
    Setting,
    first_batch,
    first_loss,
    optimizer_of,
    student_of,
    teacher_of,
)
from reflux.components.core.data.shards import Shard
from reflux.components.modalities.image.models.pixel_model import PixelModel

# Where `make bench` installs the last release of torchdistill that has a cache.
TORCHDISTILL_WITH_CACHE = ROOT / ".venv/torchdistill-1.1.4"


class SwitchedModel(nn.Module):
    """A peer's model with the switches applied from outside, as its user would.

    Args:
        model: takes uint8 pixels.
        channels_last: lets convolutions work on channels-last memory.
        bf16: computes under bfloat16 autocast.
        compiled: compiles the network.
    """

    def __init__(self, model: PixelModel, channels_last: bool, bf16: bool, compiled: bool) -> None:
        super().__init__()
        format = torch.channels_last if channels_last else torch.contiguous_format
        self.model, self._format, self._bf16 = model.to(memory_format=format), format, bf16
        # Attributes that timm's tasks read; where teacher and student are normalized alike, they leave pixels alone.
        self.num_classes, self.in_chans = len(CLASSES), model.spec.in_chans
        self.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        if compiled:
            self.model.net.compile()

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.model.normalized(pixels).contiguous(memory_format=self._format)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            return self.model.net(x).float()


def torchdistill(setting: Setting, clock: Clock, images: Shard, **switches: bool) -> None:
    """torchdistill 1.1.5, by its own box, loaders, loss and optimizer registry."""
    student, teacher = _peers(setting, **switches)
    box = _box(setting, images, student, teacher, {})
    pixels, labels = first_batch(setting, images)
    loss_before = first_loss(student, lambda: box.forward_process(pixels, labels, {}))
    clock.ready(loss=loss_before)
    _run(box, clock)


def torchdistill_cached(setting: Setting, clock: Clock, images: Shard, **switches: bool) -> None:
    """torchdistill 1.1.4 with its cache of the teacher's outputs, filled before: a file an image, whatever the view.

    1.1.5 has no cache any more, so the older release is in a folder of its own, which only this process imports.
    """
    sys.path.insert(0, str(TORCHDISTILL_WITH_CACHE))
    student, teacher = _peers(setting, **switches)
    folder = Path(setting.folder) / f"torchdistill-{os.getpid()}"
    box = _box(setting, images, student, teacher, {"cache_output": str(folder / "train")})
    # By their first loss the arms are compared, so it comes out of files as well.
    pixels, labels = first_batch(setting, images)
    files = [str(folder / f"first/{number}.pt") for number in range(len(pixels))]
    box.get_teacher_output(pixels, labels, {"cache_file_path": files})
    cached = default_collate([torch.load(file, weights_only=True) for file in files])
    loss_before = first_loss(student, lambda: box.forward_process(pixels, labels, {"cached_data": cached}))
    for batch in DataLoader(box.train_data_loader.dataset, setting.batch_size):
        box.get_teacher_output(*batch)
    clock.ready(loss=loss_before)
    _run(box, clock)


def _box(setting: Setting, images: Shard, student: nn.Module, teacher: nn.Module, loading: dict[str, str]) -> Any:
    """torchdistill's box, as its YAML files would describe it."""
    from torchdistill.core.distillation import get_distillation_box

    io = {
        f"{network}_module_{key}": value
        for network in ("student", "teacher")
        for key, value in (("path", "."), ("io", "output"))
    }
    kd = {"temperature": TEMPERATURE, "alpha": LABEL_WEIGHT, "beta": TEACHER_WEIGHT}
    criterion = {"key": "KDLoss", "kwargs": io | kd}
    loader = {"kwargs": {"batch_size": setting.batch_size, "num_workers": 0, "drop_last": True}}
    config = {
        "num_epochs": 10**9,
        "train_data_loader": loader | loading | {"dataset_id": "train", "sampler": {"class_or_func": RandomSampler}},
        "val_data_loader": loader | {"dataset_id": "train", "sampler": {"class_or_func": SequentialSampler}},
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": LR, "weight_decay": WEIGHT_DECAY, "fused": True}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"weight": 1.0, "criterion": criterion}}},
        },
    }
    return get_distillation_box(teacher, student, {"train": PeerViews(images)}, config, CPU, None, False, 1)


def _run(box: Any, clock: Clock) -> None:
    """Train in the loop of torchdistill's examples."""
    epoch = 0
    while True:
        box.pre_epoch_process(epoch=epoch)
        for x, y, supplement in box.train_data_loader:
            box.post_forward_process(loss=box.forward_process(x, y, supplement))
            clock()
        box.post_epoch_process()
        epoch += 1


def timm(setting: Setting, clock: Clock, images: Shard, **switches: bool) -> None:
    """timm's LogitDistillationTask in the loop of its documentation."""
    from timm.task import LogitDistillationTask

    student, teacher = _peers(setting, **switches)
    task = LogitDistillationTask(
        student,
        teacher,
        criterion=nn.CrossEntropyLoss(),
        task_loss_weight=LABEL_WEIGHT,
        distill_loss_weight=TEACHER_WEIGHT,
        temperature=TEMPERATURE,
        verbose=False,
    )
    _peer_loop(setting, clock, images, student, lambda pixels, labels: task(pixels, labels)["loss"])


def plain(setting: Setting, clock: Clock, images: Shard, **switches: bool) -> None:
    """A loop written by hand: a DataLoader, transforms image by image, and the teacher at every step."""
    student, teacher = _peers(setting, **switches)

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            soft = F.log_softmax(teacher(pixels), dim=1)
        logits = student(pixels)
        kl = F.kl_div(F.log_softmax(logits, dim=1), soft, reduction="batchmean", log_target=True)
        return LABEL_WEIGHT * F.cross_entropy(logits, labels) + TEACHER_WEIGHT * kl

    _peer_loop(setting, clock, images, student, loss)


class PeerViews(Dataset[tuple[Tensor, int]]):
    """Images as a torchvision user keeps them: in memory, transformed one by one, without decoding."""

    def __init__(self, images: Shard) -> None:
        self._pixels = torch.tensor(images.images[:]).permute(0, 3, 1, 2).contiguous()
        self._labels = images.labels.tolist()
        self._transform = v2.Compose([v2.RandomCrop(28, padding=2), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._pixels[index]), self._labels[index]


def _peers(
    setting: Setting, channels_last: bool, bf16_student: bool, bf16_teacher: bool, compiled: bool
) -> tuple[SwitchedModel, SwitchedModel]:
    return (
        SwitchedModel(student_of(setting), channels_last, bf16_student, compiled),
        SwitchedModel(teacher_of(setting), channels_last, bf16_teacher, compiled).eval(),
    )


def _peer_loop(
    setting: Setting, clock: Clock, images: Shard, student: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    pixels, labels = first_batch(setting, images)
    loss_before = first_loss(student, lambda: loss(pixels, labels))
    optimizer = optimizer_of(student)
    loader = DataLoader(PeerViews(images), setting.batch_size, shuffle=True, drop_last=True)
    clock.ready(loss=loss_before)
    while True:
        for pixels, labels in loader:
            optimizer.zero_grad()
            loss(pixels, labels).backward()
            optimizer.step()
            clock()
