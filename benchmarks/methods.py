"""Every distillation method against kd and a student without a teacher, on Fashion-MNIST, at the same budget.

    .venv/bin/python -m benchmarks.methods --data DIR            # a folder of Fashion-MNIST's train and test.parquet
    .venv/bin/python -m benchmarks.methods --data DIR --seeds 0  # one seed
    .venv/bin/python -m benchmarks.methods --quick               # that it runs, on the sample; the figures mean nothing

The teacher learns from 55,000 labelled images, and so does every student: the same steps, views, optimizer and
schedule, from the same weights at a seed. 5,000 training images choose the weights; the test images are looked at once.
Methods have their papers' defaults, and the weight that their papers give the labels. The teacher's answers to an
image's one view a seed are computed once, for the methods that compare layers as well. Accuracies are means over the
seeds with Student's t interval (95 %), gains those of the differences to kd and to the control seed by seed. The cost
is that of a training step as the pipeline takes it, with stored soft labels or a live teacher, in rounds that take
turns.

Finished trainings are kept in ``.reflux/methods``: a run that is interrupted goes on.
"""

import argparse
import hashlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from benchmarks.results import RESULTS, ROOT, Figure, write
from components.core.artifacts import read_json, write_json
from components.core.images.shards import Shard
from components.core.inference import predict
from components.core.models.pixel_model import PixelModel, load, pixel_model, save
from components.core.params.distill import METHODS, Distill, LayerLoss, Loss
from components.core.runtime.checkpoint import Checkpoints
from components.core.teacher.hooks import Layer, teacher_outputs
from components.core.training import loop as training
from components.core.training import optim
from components.core.training.batches import batches_of_views
from components.core.training.loop import fit
from components.core.views.mixing import Views
from components.distill.__main__ import networks_between
from components.distill.criterion import Criterion, Term, mutual_loss, terms
from components.distill.modules import Peers

CPU = torch.device("cpu")
CLASSES, MEAN, STD = tuple("0123456789"), (0.2861,), (0.3528,)
AUGMENT: dict[str, Any] = {"shift": 0.075, "flip": True, "crop_scale": 1.0, "erase": 0.0}
TEACHER, STUDENTS = "resnet20", ("resnet8_slim", "resnet8")
VALIDATION, BATCH = 5000, 128
LR, WEIGHT_DECAY = 0.01, 0.05
CONTROL = "control"
# What the papers give the labels where it is not 1; and a teacher assistant that lies between these networks.
OF_LABELS = {"kd": 0.1, "mse-logits": 0.1, "logit-standardization": 0.1, "teacher-assistant": 0.1, "born-again": 0.1}
ENTRIES: dict[str, Any] = {"teacher-assistant": {"name": "teacher-assistant", "assistants": ["resnet14"]}}


def read(folder: Path, split: str) -> Shard:
    """A split as ``ingest`` would leave it."""
    path = folder / f"{split}.parquet"
    if not path.is_file():
        sys.exit(f"Error: {path} is not there: name a folder of train.parquet and test.parquet with --data.")
    table = pq.read_table(path)
    images = np.stack(
        [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("L")) for row in table["image"].to_pylist()]
    )
    ids = b"".join(hashlib.sha256(image.tobytes()).digest()[:8] for image in images)
    return Shard(images[..., None], table["label"].to_numpy().astype(np.int64), np.frombuffer(ids, "<u8"))


def part(shard: Shard, rows: slice) -> Shard:
    """Some of the images."""
    return Shard(shard.images[rows], shard.labels[rows], shard.ids[rows])


def new(name: str, seed: int) -> PixelModel:
    """An untrained network, the same for every method at a seed."""
    torch.manual_seed(seed)
    return pixel_model(name, CLASSES, 28, 1, MEAN, STD)


class Answers:
    """A teacher's answers to one view of every image: computed once, kept in files, read by every method.

    Args:
        teacher: who answers.
        taps: the layers that any method compares.
        images: what it is shown.
        seed: of the views.
        folder: for the files, as float16.
    """

    def __init__(self, teacher: PixelModel, taps: Sequence[Layer], images: Shard, seed: int, folder: Path) -> None:
        shown, self._files, self._taps = Views(images, seed, AUGMENT), [], ["logits", *map(str, taps)]
        for begin in range(0, len(images), 500):
            rows = np.arange(begin, min(begin + 500, len(images)))
            found = teacher_outputs(teacher, tuple(taps), shown.pixels(rows, np.zeros_like(rows), CPU), CPU)
            if not begin:
                shapes = [(len(images), *answer.shape[1:]) for answer in found]
                files = [folder / f"{number}.npy" for number in range(len(found))]
                pairs = zip(files, shapes, strict=True)
                self._files = [np.lib.format.open_memmap(file, "w+", np.float16, shape) for file, shape in pairs]
            for file, answer in zip(self._files, found, strict=True):
                file[rows] = answer.half().numpy()

    def of(self, indices: npt.NDArray[np.int64], taps: Sequence[Layer]) -> tuple[Tensor, ...]:
        """The logits and what some taps gave for images [B], in float32."""
        wanted = ["logits", *map(str, taps)]
        return tuple(torch.from_numpy(self._files[self._taps.index(name)][indices]).float() for name in wanted)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that all methods share."""
    return optim.optimizer(optim.weight_decay_groups(model, WEIGHT_DECAY), "adamw", LR, WEIGHT_DECAY)


def train(
    model: nn.Module,
    images: Shard,
    val: Shard,
    seed: int,
    steps: int,
    targets_of: Callable[..., tuple[Tensor, ...]],
    loss: training.Loss,
) -> None:
    """Train by the recipe that all share; the weights that validation data choose are left."""
    recipe = training.Recipe(steps, max(1, steps // 4), BATCH, LR, weight_decay=WEIGHT_DECAY, precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "methods", every_s=3600)
        fit(
            model,
            optimizer_of(model),
            batches_of_views(Views(images, seed, AUGMENT), 1, targets_of, BATCH, CPU),
            loss,
            val,
            recipe,
            CPU,
            checkpoints,
            report=lambda _: None,
            advance=lambda *_, **__: None,
        )
        checkpoints.clear()


class Bench:
    """Trainings of one seed's students, by any method.

    Args:
        images: to learn from.
        val: to choose the weights by.
        teacher: trained.
        answers: the teacher's, to the views of the seed.
        seed: of weights, order and views.
        steps: the budget.
    """

    def __init__(self, images: Shard, val: Shard, teacher: PixelModel, answers: Answers, seed: int, steps: int) -> None:
        self._images, self._val, self._teacher, self._answers = images, val, teacher, answers
        self._seed, self._steps, self._labels = seed, steps, torch.from_numpy(images.labels)

    def student(self, name: str, method: str) -> PixelModel:
        """A student that has learnt by a method."""
        student = new(name, self._seed)
        if method == CONTROL:
            self._train(student, lambda logits, labels, _, __: training.cross_entropy(logits, labels))
            return student
        distill = settings(method)
        if method == "deep-mutual-learning":
            peers = Peers(student, [new(name, self._seed + 1000)])
            self._train(peers, partial(mutual_loss, label_weight=1.0, teacher_weight=1.0))
            return student
        answers = self._answers
        for between in networks_between(distill.schedule, name):
            assistant = new(between, self._seed + 2000)
            self._learn(assistant, distill, answers)
            with tempfile.TemporaryDirectory() as folder:
                answers = Answers(assistant.eval(), (), self._images, self._seed, Path(folder))
        self._learn(student, distill, answers)
        return student

    def _learn(self, student: PixelModel, distill: Distill, answers: Answers) -> None:
        losses = terms(distill.losses, student, self._teacher, len(self._images), distill.standardized)
        loss = Criterion(losses, distill.label_weight, distill.teacher_weight)
        self._train(loss.module(student), loss, lambda indices: answers.of(indices, loss.teacher_layers))

    def _train(
        self,
        model: nn.Module,
        loss: training.Loss,
        soft: Callable[[npt.NDArray[np.int64]], tuple[Tensor, ...]] = lambda _: (),
    ) -> None:
        def targets_of(indices: npt.NDArray[np.int64], _: Any) -> tuple[Tensor, ...]:
            return *soft(indices), self._labels[indices], torch.ones(len(indices)), torch.from_numpy(indices)

        train(model, self._images, self._val, self._seed, self._steps, targets_of, loss)


def settings(method: str) -> Distill:
    """What ``distill`` says in params.yaml for a method."""
    entry = ENTRIES.get(method, method)
    return Distill(method=entry, label_weight=OF_LABELS.get(method, 1.0), teacher_weight=1.0)  # type: ignore[arg-type]


def every_tap(teacher: PixelModel) -> list[Layer]:
    """The layers of the teacher that any method compares, each once."""
    layered = [kind() for kind in METHODS.values() if issubclass(kind, LayerLoss)]
    found = terms([loss for loss in layered if loss.name != "crd"], new(STUDENTS[0], 0), teacher, 1)
    return list({str(tap): tap for term in found for tap in term.teacher}.values())


def taught(images: Shard, val: Shard, steps: int, file: Path) -> PixelModel:
    """The teacher, trained once; its labels are hard."""
    if not file.is_file():
        teacher, labels = new(TEACHER, 100), torch.from_numpy(images.labels)
        train(teacher, images, val, 100, steps, lambda indices, _: (labels[indices],), training.cross_entropy)
        save(teacher, file)
    return load(file)


def accuracy(model: PixelModel, test: Shard) -> float:
    """Percent of the test images that are right."""
    return 100 * float((predict(model, test.images, CPU).argmax(1).numpy() == test.labels).mean())


@contextmanager
def in_fp32() -> Iterator[None]:
    """Inference in fp32, whatever the machine has: the figures are not to depend on it."""
    capabilities, torch.cpu.get_capabilities = torch.cpu.get_capabilities, dict  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.cpu.get_capabilities = capabilities


def trainings(
    data: Path, seeds: Sequence[int], steps: int, teacher_steps: int, kept: Path
) -> dict[str, dict[str, float]]:
    """Test accuracy by ``student/method`` and seed, and the teacher's."""
    everything, test = read(data, "train"), read(data, "test")
    held_out = min(VALIDATION, len(everything) // 5)
    images, val = part(everything, slice(held_out, None)), part(everything, slice(held_out))
    code = [ROOT / "components/core", ROOT / "components/distill"]
    decides = [file.read_bytes() for folder in code for file in sorted(folder.rglob("*.py"))] + [
        Path(__file__).read_bytes()
    ]
    key = hashlib.sha256(b"".join(decides) + f"{steps} {teacher_steps} {len(images)}".encode()).hexdigest()[:12]
    kept = kept / key
    kept.mkdir(parents=True, exist_ok=True)
    teacher = taught(images, val, teacher_steps, kept / "teacher.safetensors")
    found: dict[str, dict[str, float]] = {"teacher": {"": accuracy(teacher, test)}}
    print(f"teacher {TEACHER}: {found['teacher']['']:.2f} %", flush=True)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            answers = Answers(teacher, every_tap(teacher), images, seed, Path(folder))
            bench = Bench(images, val, teacher, answers, seed, steps)
            for student in STUDENTS:
                for method in (CONTROL, *METHODS):
                    file = kept / f"{student}-{method}-{seed}.json"
                    if not file.is_file():
                        write_json(file, accuracy(bench.student(student, method), test))
                    found.setdefault(f"{student}/{method}", {})[str(seed)] = read_json(file)
                    print(f"seed {seed} {student} {method}: {read_json(file):.2f} %", flush=True)
    return found


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Criterion,
    teacher: PixelModel,
    pixels: Tensor,
) -> None:
    """A training step, with a live teacher where layers are compared and its stored logits where none are."""
    stored = (torch.zeros(len(pixels), len(CLASSES)),)
    layers = loss.teacher_layers
    answer = teacher_outputs(teacher, layers, pixels, CPU) if layers else stored
    optimizer.zero_grad(set_to_none=True)
    labels = torch.arange(len(pixels)) % len(CLASSES)
    parts = loss(model(pixels), *answer, labels, torch.ones(len(pixels)), torch.arange(len(pixels)))
    training.total(parts).mean().backward()
    optimizer.step()


def costs(teacher: PixelModel, rounds: int = 5, steps: int = 6) -> dict[str, list[float]]:
    """Images a second of a training step by method, a number a round; a live teacher where layers are compared."""
    pixels = torch.randint(0, 256, (BATCH, 1, 28, 28), dtype=torch.uint8)
    arms: dict[str, Callable[[], None]] = {}
    for method in (CONTROL, *(name for name, kind in METHODS.items() if issubclass(kind, Loss))):
        student = new(STUDENTS[0], 0).train()
        found: list[Term] = []
        if method != CONTROL:
            found = terms(settings(method).losses, student, teacher, 10_000)
        loss = Criterion(found, 1.0, 1.0)
        model = loss.module(student).train()
        arms[method] = partial(one_step, model, optimizer_of(model), loss, teacher, pixels)
        arms[method]()
    rates: dict[str, list[float]] = {method: [] for method in arms}
    for _ in range(rounds):
        for method, arm in arms.items():
            began = time.perf_counter()
            for _ in range(steps):
                arm()
            rates[method].append(steps * BATCH / (time.perf_counter() - began))
    return rates


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % t interval; of one value, the value."""
    mean = statistics.mean(values)
    half = 0.0
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def figures_of(found: dict[str, dict[str, float]], rates: dict[str, list[float]]) -> list[Figure]:
    """Accuracy, and gain over control and over kd, of every student and method; images a second of a step."""

    def figure(name: str, values: Sequence[float], unit: str) -> Figure:
        return Figure(name, *(round(number, 2) for number in mean_and_interval(values)), unit)

    made = [figure("teacher", list(found["teacher"].values()), "%")]
    for name, of_seed in found.items():
        student, _, method = name.partition("/")
        if method:
            made.append(figure(f"{name}/accuracy", list(of_seed.values()), "%"))
            for other in (CONTROL, "kd"):
                if method != other:
                    gains = [value - found[f"{student}/{other}"][seed] for seed, value in of_seed.items()]
                    made.append(figure(f"{name}/gain_over_{other}", gains, "points"))
    made += [figure(f"images_per_s/{method}", values, "images/s") for method, values in rates.items()]
    return made


def table(figures: Sequence[Figure]) -> str:
    """The README's table: the methods from best to worst on the first student."""
    by_name = {figure.name: figure for figure in figures}

    def cell(name: str) -> str:
        figure = by_name.get(name)
        return f"{figure.value:.2f} ± {figure.high - figure.value:.2f}" if figure else ""

    lines = [f"| method | {STUDENTS[0]} | over control | {STUDENTS[1]} | over control | images/s of a step |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    names = sorted((CONTROL, *METHODS), key=lambda m: -by_name[f"{STUDENTS[0]}/{m}/accuracy"].value)
    for method in names:
        cells = [
            cell(f"{student}/{method}/{what}") for student in STUDENTS for what in ("accuracy", "gain_over_control")
        ]
        speed = by_name.get(f"images_per_s/{method}")
        lines.append(f"| {method} | {' | '.join(cells)} | {f'{speed.value:,.0f}' if speed else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is not kept yet, time the steps, write the figures and print the table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, default=ROOT / "data/fashion-mnist")
    ask.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ask.add_argument("--steps", type=int, default=600, help="of a student, of 128 images")
    ask.add_argument("--teacher-steps", type=int, default=1500)
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    ask.add_argument("--kept", type=Path, default=ROOT / ".reflux/methods")
    ask.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    asked_for = ask.parse_args()
    torch.set_num_threads(asked_for.threads)
    with in_fp32():
        if asked_for.quick:
            with tempfile.TemporaryDirectory() as folder:
                found = trainings(asked_for.data, [0], 2, 4, Path(folder))
        else:
            found = trainings(asked_for.data, asked_for.seeds, asked_for.steps, asked_for.teacher_steps, asked_for.kept)
    rates = costs(new(TEACHER, 0).eval())
    figures = figures_of(found, rates)
    print(f"\n{table(figures)}")
    if not asked_for.quick:
        print(f"\nWritten: {write('methods', figures, RESULTS).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
