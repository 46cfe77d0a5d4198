"""The store's speed on a GPU: a ResNet18 student, a ResNet50 teacher, 64 and 224 pixels, bfloat16.

    export PYTHONPATH=infra/package                 # where reflux is not installed
    python -m benchmarks.gpu                        # on a machine with CUDA; writes benchmarks/results/gpu.json
    python -m benchmarks.gpu --device cpu --quick   # sees that everything runs; the figures mean nothing

It needs torch, torchvision, timm and this checkout, nothing else of the pipeline's environment. Three arms take turns:
the bare student step on a batch that is on the device, our loop with the store, and our loop with a live teacher.
Images and soft labels are random and in memory, which changes no speed. A figure is the median of the rounds, its
low and high are the lowest and highest round. Utilisation is the share of time in which a kernel ran, from nvidia-smi.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.results import Figure, argument_parser, of_rounds, publish
from benchmarks.harness.training import kd_criterion, train
from reflux.components.core.data.shards import Shard
from reflux.components.core.precision import autocast
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.training import optim
from reflux.components.core.training.batches import TrainingViews, batches_of_views
from reflux.components.core.training.loop import Batch, Recipe, total
from reflux.components.modalities.image.layers import teacher_outputs
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.modalities.image.views.mixing import Views

CLASSES = tuple(str(number) for number in range(100))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT: dict[str, Any] = {"shift": 0.0, "flip": True, "crop_scale": 0.35, "erase": 0.0}
VIEWS = 4
LR = 0.001

criterion = kd_criterion(temperature=1.0, label_weight=0.1)


def model(name: str, size: int, device: torch.device) -> PixelModel:
    """A network with random weights, the same every time."""
    torch.manual_seed(0)
    return pixel_model(name, CLASSES, size, 3, MEAN, STD).to(device).train()


def batches(
    images: Shard, soft_labels: Tensor, teacher: PixelModel | None, batch_size: int, device: torch.device
) -> Callable[[int], Iterator[Batch]]:
    """Our loop's batches, with targets from memory or from the teacher."""
    labels = torch.from_numpy(images.labels)

    def hard(indices: np.ndarray[Any, Any], _views: Any) -> tuple[Tensor, ...]:
        return labels[indices], torch.ones(len(indices)), torch.from_numpy(indices)

    def soft_and_hard(indices: np.ndarray[Any, Any], views: np.ndarray[Any, Any]) -> tuple[Tensor, ...]:
        return soft_labels[views, indices].float(), *hard(indices, views)

    outputs = partial(teacher_outputs, teacher.eval(), (), device=device) if teacher else None
    targets_of = hard if teacher else soft_and_hard
    return batches_of_views(TrainingViews(Views(images, 0, AUGMENT), VIEWS, targets_of, outputs), batch_size, device)


class Watch:
    """Times the steps after the first ones, which warm up, synchronized with the device at both ends.

    Args:
        device: where the steps run.
        warm: steps that are not timed.
        steps: steps that are timed.
    """

    def __init__(self, device: torch.device, warm: int, steps: int) -> None:
        self._device, self._warm, self.steps, self._done = device, warm, steps, 0
        self._began = self.seconds = self.utilization = 0.0
        self._smi: subprocess.Popen[str] | None = None

    @property
    def total(self) -> int:
        """The number of steps to run."""
        return self._warm + self.steps

    def step(self, *_: Any, **__: Any) -> None:
        """Count a step, and start or stop the time."""
        self._done += 1
        if self._done == self._warm:
            self._synchronize()
            self._smi = self._sampler()
            self._began = time.perf_counter()
        elif self._done == self.total:
            self._synchronize()
            self.seconds = time.perf_counter() - self._began
            if self._smi is not None:
                self._smi.terminate()
                samples = [float(line) for line in self._smi.communicate()[0].split() if line.isdigit()]
                self.utilization = sum(samples) / max(len(samples), 1)

    def _sampler(self) -> "subprocess.Popen[str] | None":
        if self._device.type != "cuda" or not shutil.which("nvidia-smi"):
            return None
        command = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            "-lms",
            "200",
            "-i",
            "0",
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def optimizer_of(student: PixelModel) -> torch.optim.Optimizer:
    """The same fused AdamW for every arm."""
    return optim.optimizer([{"params": list(student.parameters())}], "adamw", LR, 0.05)


def bare(student: PixelModel, ready: Batch, watch: Watch) -> None:
    """The limit: the student's own step on a batch that is on the device."""
    optimizer = optimizer_of(student)
    for _ in range(watch.total):
        with autocast(ready.pixels.device, training=True):
            logits = student(ready.pixels)
        total(criterion(logits, *ready.targets)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.step()


def ours(
    student: PixelModel, source: Callable[[int], Iterator[Batch]], images: Shard, batch_size: int, watch: Watch
) -> None:
    """Our loop; it validates once, after the last timed step, and on a few images."""
    few = Shard(images.images[:64], images.labels[:64], images.ids[:64])
    recipe = Recipe(watch.total, watch.total, batch_size, LR)
    device = next(student.parameters()).device
    train(
        student,
        optimizer_of(student),
        source,
        criterion,
        few,
        recipe,
        device,
        advance=lambda count, **_: watch.step() if count else None,
    )


def measure(size: int, count: int, batch_size: int, steps: int, rounds: int, device: torch.device) -> list[Figure]:
    """Images/s, ratios to the bare step and utilization at one image size."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    images = Shard(pixels, rng.integers(0, len(CLASSES), count), rng.integers(0, 2**63, count).astype(np.uint64))
    soft_labels = torch.from_numpy(rng.normal(size=(VIEWS, count, len(CLASSES))).astype(np.float16))
    teacher = model("resnet50", size, device)
    rates: dict[str, list[float]] = {"bare": [], "store": [], "live": []}
    busy: dict[str, list[float]] = {"bare": [], "store": [], "live": []}
    for _ in range(rounds):
        for name in ("bare", "store", "live"):
            student, watch = model("resnet18", size, device), Watch(device, max(1, steps // 5), steps)
            source = batches(images, soft_labels, teacher if name == "live" else None, batch_size, device)
            if name == "bare":
                bare(student, next(source(0)), watch)
            else:
                ours(student, source, images, batch_size, watch)
            rates[name].append(steps * batch_size / watch.seconds)
            busy[name].append(watch.utilization)
    figures = [of_rounds(f"images_per_s_{name}_{size}px", values, "images/s") for name, values in rates.items()]
    for name in ("store", "live"):
        ratios = [a / b for a, b in zip(rates[name], rates["bare"], strict=True)]
        figures.append(of_rounds(f"{name}_over_bare_{size}px", ratios, "x"))
    if device.type == "cuda" and any(busy["bare"]):
        figures += [of_rounds(f"gpu_utilisation_{name}_{size}px", values, "%") for name, values in busy.items()]
    return figures


def main() -> None:
    """Measure, and write ``gpu.json``."""
    parser = argument_parser(__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "Error: torch sees no CUDA device here: run it on a GPU machine, or see it work with --device cpu --quick.",
            file=sys.stderr,
        )
        sys.exit(2)
    device = resolve_device(options.device, 0, False)
    sizes, count = ((32,), 64) if options.quick else ((64, 224), 4096)
    if options.quick:
        options.batch_size, options.steps, options.rounds = 8, 2, 1
    publish(
        "gpu",
        (
            figure
            for size in sizes
            for figure in measure(size, count, options.batch_size, options.steps, options.rounds, device)
        ),
        options.out,
    )


if __name__ == "__main__":
    main()
