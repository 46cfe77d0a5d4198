"""Every distillation method against kd and a student without a teacher, on Fashion-MNIST, at the same budget.

    .venv/bin/python -m benchmarks.methods --data DIR            # a folder of Fashion-MNIST's train and test.parquet
    .venv/bin/python -m benchmarks.methods --data DIR --seeds 0  # one seed
    .venv/bin/python -m benchmarks.methods --quick               # see that it runs, on the sample; no figures

The teacher learns from 55,000 labeled images, and so does every student: the same steps, views, optimizer and
schedule, from the same weights at a seed. 5,000 training images choose the weights; the test images are looked at once.
Methods have their papers' defaults, and the weight that their papers give the labels. The teacher's logits and features
of an image's one view a seed are computed once. Accuracies are means over the seeds with Student's t interval (95 %),
gains those of the differences to kd and to the control seed by seed. Speeds are those of the pipeline's training step,
with stored soft labels or, where layers are compared, with a live teacher, in rounds that take turns.

Students train by the pipeline's code. Born-again and teacher-assistant differ in one thing: networks before the student
start from weights of another seed, where the pipeline gives every network the weights of its one seed.

Results of finished training runs are kept in ``.reflux/methods``: an interrupted benchmark resumes.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.checkout import code_digest
from benchmarks.images import SIZE, part, read_split
from benchmarks.results import ROOT, Figure, argument_parser, of_seeds, write
from benchmarks.training import CPU
from components.core import student as pipeline
from components.core.artifacts import read_json, write_json
from components.core.images.shards import Shard
from components.core.inference import predict
from components.core.models.pixel_model import PixelModel, load, pixel_model, save
from components.core.params.distill import METHODS, Distill, LayerLoss, Loss
from components.core.runtime.checkpoint import Checkpoints
from components.core.runtime.journal import NullJournal
from components.core.runtime.world import ALONE
from components.core.teacher.hooks import Layer, teacher_outputs
from components.core.training import loop, optim
from components.core.views.mixing import Views
from components.distill.__main__ import networks_between
from components.distill.criterion import Criterion, mutual_loss, terms
from components.distill.modules import Peers

CLASSES, MEAN, STD = tuple("0123456789"), (0.2861,), (0.3528,)
AUGMENT: dict[str, Any] = {"shift": 0.075, "flip": True, "crop_scale": 1.0, "erase": 0.0}
TEACHER, STUDENTS = "resnet20", ("resnet8_slim", "resnet8")
VALIDATION, BATCH = 5000, 128
CONTROL = "control"
# The weights that papers give the labels where it is not 1, and a teacher assistant between these networks.
LABEL_WEIGHTS = {
    "kd": 0.1,
    "mse-logits": 0.1,
    "logit-standardization": 0.1,
    "teacher-assistant": 0.1,
    "born-again": 0.1,
}
ENTRIES: dict[str, Any] = {"teacher-assistant": {"name": "teacher-assistant", "assistants": ["resnet14"]}}


Indices = npt.NDArray[np.int64]


def untrained(name: str, seed: int) -> PixelModel:
    """An untrained network, the same for every method at a seed."""
    torch.manual_seed(seed)
    return pixel_model(name, CLASSES, SIZE, 1, MEAN, STD)


def recipe_of(steps: int) -> loop.Recipe:
    """The recipe that all networks share."""
    return loop.Recipe(steps, max(1, steps // 4), BATCH, lr=0.01, weight_decay=0.05, precision="fp32")


class TeacherOutputs:
    """A teacher's logits and features of one view of every image: computed once, kept in files as float16.

    Args:
        teacher: in eval mode.
        layers: those that any method compares.
        images: the images.
        seed: of the views.
        folder: of the files.
    """

    def __init__(self, teacher: PixelModel, layers: Sequence[Layer], images: Shard, seed: int, folder: Path) -> None:
        views, self._files = Views(images, seed, AUGMENT), []
        self._names = ["logits", *map(str, layers)]
        for begin in range(0, len(images), 500):
            rows = np.arange(begin, min(begin + 500, len(images)))
            outputs = teacher_outputs(teacher, layers, views.pixels(rows, np.zeros_like(rows), CPU), CPU)
            if not begin:
                self._files = [
                    np.lib.format.open_memmap(
                        folder / f"{number}.npy", "w+", np.float16, (len(images), *output.shape[1:])
                    )
                    for number, output in enumerate(outputs)
                ]
            for file, output in zip(self._files, outputs, strict=True):
                file[rows] = output.half().numpy()

    def read(self, indices: Indices, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
        """The logits, and the features of some layers, of images [B], as float32."""
        names = ["logits", *map(str, layers)]
        return tuple(torch.from_numpy(self._files[self._names.index(name)][indices]).float() for name in names)


class Students:
    """Trains one seed's students, by any method.

    Args:
        images: to learn from.
        val: to choose the weights by.
        teacher: trained.
        outputs: the teacher's, of the seed's views.
        seed: of weights, order and views.
        steps: the budget.
    """

    def __init__(
        self, images: Shard, val: Shard, teacher: PixelModel, outputs: TeacherOutputs, seed: int, steps: int
    ) -> None:
        self._images, self._val, self._teacher, self._outputs = images, val, teacher, outputs
        self._seed, self._steps = seed, steps

    def trained(self, name: str, method: str) -> PixelModel:
        """Train a student by a method."""
        student, seed = untrained(name, self._seed), self._seed
        if method == CONTROL:
            self._train(student, lambda logits, labels, *_: loop.cross_entropy(logits, labels))
            return student
        distill = params_of(method)
        if method == "deep-mutual-learning":
            peers = Peers(student, [untrained(name, seed + 1000)])
            self._train(peers, partial(mutual_loss, label_weight=1.0, teacher_weight=1.0))
            return student
        outputs = self._outputs
        for between in networks_between(distill.schedule, name):
            assistant = untrained(between, seed + 2000)
            self._distill(assistant, distill, outputs)
            with tempfile.TemporaryDirectory() as folder:
                outputs = TeacherOutputs(assistant.eval(), (), self._images, seed, Path(folder))
        self._distill(student, distill, outputs)
        return student

    def _distill(self, student: PixelModel, distill: Distill, outputs: TeacherOutputs) -> None:
        losses = terms(distill.losses, student, self._teacher, len(self._images), distill.standardized)
        criterion = Criterion(losses, distill.label_weight, distill.teacher_weight)
        layers = criterion.teacher_layers
        self._train(criterion.module(student), criterion, lambda indices: outputs.read(indices, layers))

    def _train(
        self, model: nn.Module, loss: loop.Loss, soft: Callable[[Indices], tuple[Tensor, ...]] = lambda _: ()
    ) -> None:
        train(model, self._images, self._val, self._seed, self._steps, loss, soft)


def train(
    model: nn.Module,
    images: Shard,
    val: Shard,
    seed: int,
    steps: int,
    loss: loop.Loss,
    soft: Callable[[Indices], tuple[Tensor, ...]] = lambda _: (),
) -> None:
    """Train a network as the pipeline trains a student, with the weights that validation chooses."""
    labels, views = torch.from_numpy(images.labels), Views(images, seed, AUGMENT)

    def targets_of(indices: Indices, _: Any) -> tuple[Tensor, ...]:
        return *soft(indices), labels[indices], torch.ones(len(indices)), torch.from_numpy(indices)

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "methods", every_s=3600)
        recipe, journal = recipe_of(steps), NullJournal()
        pipeline.train(
            model, recipe, views, 1, targets_of, loss, val, CPU, ALONE, checkpoints, journal, stage="methods"
        )
        checkpoints.clear()


def params_of(method: str) -> Distill:
    """The section ``distill`` of params.yaml for a method."""
    entry = ENTRIES.get(method, method)
    return Distill(method=entry, label_weight=LABEL_WEIGHTS.get(method, 1.0), teacher_weight=1.0)


def compared_layers(teacher: PixelModel) -> list[Layer]:
    """The layers of the teacher that any method compares, each once."""
    losses = [kind() for name, kind in METHODS.items() if issubclass(kind, LayerLoss) and name != "crd"]
    compared = terms(losses, untrained(STUDENTS[0], 0), teacher, 1)
    return list({str(layer): layer for term in compared for layer in term.teacher}.values())


def trained_teacher(images: Shard, val: Shard, steps: int, file: Path) -> PixelModel:
    """The teacher, trained once on labels alone and kept in ``file``."""
    if not file.is_file():
        teacher = untrained(TEACHER, 100)
        train(teacher, images, val, 100, steps, lambda logits, labels, *_: loop.cross_entropy(logits, labels))
        save(teacher, file)
    return load(file)


def accuracy(model: PixelModel, test: Shard) -> float:
    """The accuracy on the test images in percent."""
    return 100 * float((predict(model, test.images, CPU).argmax(1).numpy() == test.labels).mean())


@contextmanager
def in_fp32() -> Iterator[None]:
    """Infer in fp32 on any machine, so that the figures do not depend on it."""
    capabilities, torch.cpu.get_capabilities = torch.cpu.get_capabilities, dict  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.cpu.get_capabilities = capabilities


def accuracies(
    data: Path, seeds: Sequence[int], steps: int, teacher_steps: int, kept: Path
) -> dict[str, dict[str, float]]:
    """Train the teacher and all students; returns test accuracies by ``student/method`` and seed."""
    everything, test = read_split(data, "train"), read_split(data, "test")
    held_out = min(VALIDATION, len(everything) // 5)
    images, val = part(everything, slice(held_out, None)), part(everything, slice(held_out))
    kept = kept / f"{code_digest(Path(__file__))}-{steps}-{teacher_steps}-{len(images)}"
    kept.mkdir(parents=True, exist_ok=True)
    teacher = trained_teacher(images, val, teacher_steps, kept / "teacher.safetensors")
    results: dict[str, dict[str, float]] = {"teacher": {"": accuracy(teacher, test)}}
    print(f"teacher {TEACHER}: {results['teacher']['']:.2f} %", flush=True)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            outputs = TeacherOutputs(teacher, compared_layers(teacher), images, seed, Path(folder))
            students = Students(images, val, teacher, outputs, seed, steps)
            for student in STUDENTS:
                for method in (CONTROL, *METHODS):
                    file = kept / f"{student}-{method}-{seed}.json"
                    if not file.is_file():
                        write_json(file, accuracy(students.trained(student, method), test))
                    results.setdefault(f"{student}/{method}", {})[str(seed)] = read_json(file)
                    print(f"seed {seed} {student} {method}: {read_json(file):.2f} %", flush=True)
    return results


def one_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, criterion: Criterion, teacher: PixelModel, pixels: Tensor
) -> None:
    """A training step, with a live teacher where layers are compared and its stored logits where none are."""
    stored = (torch.zeros(len(pixels), len(CLASSES)),)
    layers = criterion.teacher_layers
    outputs = teacher_outputs(teacher, layers, pixels, CPU) if layers else stored
    optimizer.zero_grad(set_to_none=True)
    labels = torch.arange(len(pixels)) % len(CLASSES)
    parts = criterion(model(pixels), *outputs, labels, torch.ones(len(pixels)), torch.arange(len(pixels)))
    loop.total(parts).mean().backward()
    optimizer.step()


def speeds(teacher: PixelModel, rounds: int = 5, steps: int = 6) -> dict[str, list[float]]:
    """Images a second of a training step by method, one number a round; a live teacher where layers are compared."""
    pixels = torch.randint(0, 256, (BATCH, 1, SIZE, SIZE), dtype=torch.uint8)
    arms: dict[str, Callable[[], None]] = {}
    recipe = recipe_of(steps)
    for method in (CONTROL, *(name for name, kind in METHODS.items() if issubclass(kind, Loss))):
        student = untrained(STUDENTS[0], 0).train()
        losses = [] if method == CONTROL else terms(params_of(method).losses, student, teacher, 10_000)
        criterion = Criterion(losses, 1.0, 1.0)
        model = criterion.module(student).train()
        groups = optim.weight_decay_groups(model, recipe.weight_decay)
        optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
        arms[method] = partial(one_step, model, optimizer, criterion, teacher, pixels)
        arms[method]()
    rates: dict[str, list[float]] = {method: [] for method in arms}
    for _ in range(rounds):
        for method, arm in arms.items():
            began = time.perf_counter()
            for _ in range(steps):
                arm()
            rates[method].append(steps * BATCH / (time.perf_counter() - began))
    return rates


def figures_of(results: Mapping[str, Mapping[str, float]], rates: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Accuracy, and gain over control and over kd, of every student and method; images a second of a step."""
    figures = [of_seeds("teacher", list(results["teacher"].values()), "%")]
    for name, by_seed in results.items():
        student, _, method = name.partition("/")
        if method:
            figures.append(of_seeds(f"{name}/accuracy", list(by_seed.values()), "%"))
            for other in (CONTROL, "kd"):
                if method != other:
                    gains = [value - results[f"{student}/{other}"][seed] for seed, value in by_seed.items()]
                    figures.append(of_seeds(f"{name}/gain_over_{other}", gains, "points"))
    return figures + [of_seeds(f"images_per_s/{method}", values, "images/s") for method, values in rates.items()]


def table(figures: Sequence[Figure]) -> str:
    """The README's table: the methods from best to worst on the first student."""
    by_name = {figure.name: figure for figure in figures}

    def cell(name: str) -> str:
        figure = by_name.get(name)
        return f"{figure.value:.2f} ± {figure.high - figure.value:.2f}" if figure else ""

    lines = [f"| method | {STUDENTS[0]} | over control | {STUDENTS[1]} | over control | images/s of a step |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    methods = sorted((CONTROL, *METHODS), key=lambda m: -by_name[f"{STUDENTS[0]}/{m}/accuracy"].value)
    for method in methods:
        names = [f"{student}/{method}" for student in STUDENTS]
        cells = [cell(f"{name}/{figure}") for name in names for figure in ("accuracy", "gain_over_control")]
        speed = by_name.get(f"images_per_s/{method}")
        lines.append(f"| {method} | {' | '.join(cells)} | {f'{speed.value:,.0f}' if speed else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is not kept yet, time the steps, write the figures and print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data/fashion-mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of a student, of 128 images")
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kept", type=Path, default=ROOT / ".reflux/methods", help="folder of finished results")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with in_fp32():
        if options.quick:
            with tempfile.TemporaryDirectory() as folder:
                results = accuracies(options.data, [0], 2, 4, Path(folder))
        else:
            results = accuracies(options.data, options.seeds, options.steps, options.teacher_steps, options.kept)
    figures = figures_of(results, speeds(untrained(TEACHER, 0).eval()))
    print(f"\n{table(figures)}")
    if not options.quick:
        print(f"\nWritten: {write('methods', figures, options.out)}")


if __name__ == "__main__":
    main()
