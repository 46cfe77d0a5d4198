"""How fast this machine computes a network: a few timed steps with random weights, measured once and kept.

Measure in a process that has the environment of stages (``STAGE_ENVIRONMENT`` of ``reflux.flows.local.supervised``),
which decides how torch's threads wait for each other: the flows do so by ``python -m reflux.components.advice.plan``.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import update_wrapper
from inspect import signature
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any, Generic, ParamSpec

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.errors import UserError
from reflux.components.core.project import root
from reflux.components.core.runtime import installed
from reflux.components.core.runtime.machine import machine, usable_cores

KEPT = Path(".reflux/speed")  # in the root: a machine is as fast for all pipelines of a project

P = ParamSpec("P")

# Of a network. A step of a large one on a whole batch may take a minute: fewer images say nearly as much.
_SECONDS, _MOST_STEPS = 1.0, 60
_RENDERED = 64
_LATELY_S = 600
_START = "import time, torch, timm, reflux.components.core.training.loop, onnxruntime; print(time.process_time())"


class MeasuredOnce(Generic[P]):
    """A measurement in seconds, of this machine with these packages, that is kept under its arguments."""

    def __init__(self, measure: Callable[P, float]) -> None:
        self._measure = measure
        update_wrapper(self, measure)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> float:
        kept = self.kept(*args, **kwargs)
        if kept is not None:
            return kept
        load = os.getloadavg()[0]
        seconds = self._measure(*args, **kwargs)
        write_json(self.file(*args, **kwargs), {**self._facts(*args, **kwargs), "load": load, "seconds": seconds})
        return seconds

    def kept(self, *args: P.args, **kwargs: P.kwargs) -> float | None:
        """The measurement, unless there is none, or an old one of a machine that was much busier than it is now."""
        file = self.file(*args, **kwargs)
        try:
            facts = read_json(file)
            load, seconds = float(facts["load"]), float(facts["seconds"])
        except (UserError, KeyError, TypeError, ValueError):  # not measured yet, or damaged
            return None
        was_busy = load > max(usable_cores(), 2 * os.getloadavg()[0])
        return None if was_busy and time.time() - file.stat().st_mtime > _LATELY_S else seconds

    def file(self, *args: P.args, **kwargs: P.kwargs) -> Path:
        """Where the measurement with these arguments is kept, or will be."""
        known_by = json.dumps(self._facts(*args, **kwargs), sort_keys=True)
        return root() / KEPT / f"{hashlib.sha256(known_by.encode()).hexdigest()[:32]}.json"

    def _facts(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        bound = signature(self._measure).bind(*args, **kwargs)
        bound.apply_defaults()
        here = {"machine": machine(), "packages": installed.builds("evaluate")}
        return {"what": self._measure.__name__, **here, **bound.arguments}


@dataclass(frozen=True)
class Measurement:
    """A measurement with its arguments."""

    of: MeasuredOnce[...]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> float:
        return self.of(*self.arguments)

    def kept(self) -> float | None:
        """See :meth:`MeasuredOnce.kept`."""
        return self.of.kept(*self.arguments)


@MeasuredOnce
def seconds_an_image(
    model: str,
    image_size: int,
    stored_size: int,
    channels: int,
    classes: int,
    batch_size: int,
    training: bool,
    device: str,
    threads: int,
    precision: str = "auto",
    freeze_batch_norm: bool = False,
    in_company: bool = False,
) -> float:
    """Seconds that a network takes for an image, on a machine that has nothing else to do.

    Args:
        model: its name.
        image_size, channels: of its input.
        stored_size: of the images that it is given, which it resizes.
        classes: how many it tells apart.
        batch_size: images in a step.
        training: a step of training (forward, backward and optimizer); False for inference.
        device: as in ``run.device``.
        threads: CPU threads; 0 is torch's own choice.
        precision: of the training, as in the params.
        freeze_batch_norm: as in ``finetune.freeze_batch_norm``.
        in_company: time it while a second one computes the same, as student and control train side by side.

    Raises:
        UserError: the network is unknown or can't take such images, or the device is not there.
    """
    import torch

    from reflux.components.core.runtime.device import resolve_device

    before = torch.get_num_threads()
    try:
        where = resolve_device(device, threads, deterministic=False)
        shape = (batch_size, channels, stored_size, stored_size)
        pixels = torch.randint(256, shape, generator=torch.Generator(), dtype=torch.uint8)
        pixels = pixels.to(where, memory_format=torch.channels_last)

        def a_step() -> Callable[[int], object]:
            network = _network(model, image_size, channels, classes, freeze_batch_norm, where)
            return _training_step(network, pixels, classes, precision) if training else _inference_step(network, pixels)

        step = a_step()
        with _repeated(a_step(), batch_size) if in_company else nullcontext():
            return _timed(step, batch_size, where)
    finally:
        torch.set_num_threads(before)


@contextmanager
def _repeated(step: Callable[[int], object], count: int) -> Iterator[None]:
    """Take steps in a thread of its own until the block ends."""
    ended = Event()

    def repeat() -> None:
        while not ended.is_set():
            step(count)

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _network(model: str, image_size: int, channels: int, classes: int, frozen: bool, device: Any) -> Any:
    """A network with random weights, whose draws leave torch's generator as it was."""
    import torch

    from reflux.components.modalities.image.models.pixel_model import pixel_model
    from reflux.components.stages.finetune.transfer import freeze_batch_norm

    names = [str(number) for number in range(classes)]
    with torch.random.fork_rng(devices=[]):
        network = pixel_model(model, names, image_size, channels, (0.5,) * channels, (0.25,) * channels).to(device)
    if frozen:
        freeze_batch_norm(network)
    return network


def _training_step(network: Any, pixels: Any, classes: int, precision: str) -> Callable[[int], object]:
    import torch
    from torch.nn import functional as F

    from reflux.components.core.precision import autocast
    from reflux.components.core.training import optim

    labels = (torch.arange(len(pixels)) % classes).to(pixels.device)
    optimizer = optim.optimizer([{"params": list(network.parameters())}], "adamw", 1e-3, 0.0)
    network.train()

    def step(count: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(pixels.device, training=True, precision=precision):
            logits = network(pixels[:count])
        F.cross_entropy(logits, labels[:count]).backward()
        optimizer.step()

    return step


def _inference_step(network: Any, pixels: Any) -> Callable[[int], object]:
    import torch

    from reflux.components.core.precision import autocast

    network.eval()

    @torch.inference_mode()
    def step(count: int) -> None:
        with autocast(pixels.device, training=False):
            network(pixels[:count])

    return step


@MeasuredOnce
def seconds_a_view(image_size: int, channels: int, augment: dict[str, Any], device: str, threads: int) -> float:
    """Seconds that it takes to render a view of a stored image; ``augment`` as in the params."""
    import numpy as np
    import torch

    from reflux.components.core.data.shards import Shard
    from reflux.components.core.runtime.device import resolve_device
    from reflux.components.modalities.image.views.mixing import Views

    rng, indices = np.random.default_rng(0), np.arange(_RENDERED)
    images = rng.integers(0, 256, (_RENDERED, image_size, image_size, channels), np.uint8)
    views = Views(Shard(images, indices % 2, rng.integers(0, 2**63, _RENDERED, np.uint64)), 0, augment)
    before = torch.get_num_threads()
    try:
        where = resolve_device(device, threads, deterministic=False)
        return _timed(lambda count: views.pixels(indices[:count], indices[:count], where), _RENDERED, where)
    finally:
        torch.set_num_threads(before)


@MeasuredOnce
def seconds_to_start() -> float:
    """Seconds of a new process until it has imported what a stage that trains needs."""
    done = subprocess.run([sys.executable, "-c", _START], check=True, capture_output=True, text=True)
    return float(done.stdout)


def _timed(step: Callable[[int], object], batch_size: int, device: Any) -> float:
    """The median seconds an image of a step on ``batch_size`` images, or on fewer where a step takes long.

    On a CPU that others keep busy, the clock is that of this thread alone: what it computes takes as long whatever else
    the machine has to do, and its share of the work is as large as the other threads'.
    """
    import torch

    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda or os.getloadavg()[0] <= usable_cores() else time.thread_time

    def seconds(count: int) -> float:
        began = clock()
        step(count)
        if cuda:
            torch.cuda.synchronize(device)
        return clock() - began

    few = min(2, batch_size)
    slowest = [seconds(few), seconds(few)][-1] / few  # few images share what a step costs by itself
    count = max(few, min(batch_size, round(_SECONDS / max(slowest, 1e-9))))
    seconds(count)
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not taken or (time.perf_counter() < end and len(taken) < _MOST_STEPS):
        taken.append(seconds(count))
    return median(taken) / count
