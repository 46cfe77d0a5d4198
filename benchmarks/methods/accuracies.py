"""What trained students get right, kept in files: what was trained before is not trained again."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.harness.training import CPU
from benchmarks.methods.outputs import TeacherOutputs
from benchmarks.methods.students import Students, compared_layers
from benchmarks.methods.task import Task
from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.data.shards import Shard
from reflux.components.core.inference import predict
from reflux.components.modalities.image.models.pixel_model import PixelModel


@contextmanager
def in_fp32() -> Iterator[None]:
    """Infer in fp32 on any machine, so that the figures do not depend on it."""
    capabilities, torch.cpu.get_capabilities = torch.cpu.get_capabilities, dict  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.cpu.get_capabilities = capabilities


def accuracy(model: PixelModel, test: Shard) -> float:
    """The accuracy on the test images in percent."""
    return 100 * float((predict(model, test.images, CPU).argmax(1).numpy() == test.labels).mean())


def ensemble_accuracy(models: Sequence[PixelModel], test: Shard) -> float:
    """The accuracy of several networks' mean probabilities on the test images in percent."""
    mean = torch.stack([predict(model, test.images, CPU).softmax(1) for model in models]).mean(0)
    return 100 * float((mean.argmax(1).numpy() == test.labels).mean())


def measured(chain: Sequence[PixelModel], test: Shard) -> dict[str, float]:
    """Test accuracies of the last network of a chain, and of the ensemble where all are of one kind."""
    alone = {"": accuracy(chain[-1], test)}
    if len(chain) > 1 and len({model.spec.name for model in chain}) == 1:
        return alone | {"/ensemble": ensemble_accuracy(chain, test)}
    return alone


def train_missing(
    task: Task, arms: Sequence[tuple[str, str]], seed: int, steps: int
) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    """Train students by methods; gives each pair with what was measured, as soon as it is."""
    with tempfile.TemporaryDirectory() as folder:
        layers = compared_layers(task.teacher, [method for _, method in arms], len(task.images))
        outputs = TeacherOutputs(task.teacher, layers, task.images, task.views, seed, Path(folder))
        students = Students(task, outputs, seed, steps)
        for student, method in arms:
            yield (student, method), measured(students.trained(student, method), task.test)


def accuracies(
    task: Task,
    students: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    kept: Path,
) -> dict[str, dict[str, float]]:
    """Train what is not kept yet; returns test accuracies by ``student/method`` and seed, and the teacher's.

    Where a method trains several generations of the student, their ensemble's are under ``student/method/ensemble``.
    """
    results: dict[str, dict[str, float]] = {"teacher": {"": accuracy(task.teacher, task.test)}}
    for seed in seeds:
        files = {(name, method): kept / f"{name}-{method}-{seed}.json" for name in students for method in methods}
        missing = [arm for arm, file in files.items() if not file.is_file()]
        for (student, method), value in train_missing(task, missing, seed, steps) if missing else ():
            write_json(files[student, method], value)
            print(f"seed {seed} {student} {method}: {value}", flush=True)
        for (student, method), file in files.items():
            for name, value in read_json(file).items():
                results.setdefault(f"{student}/{method}{name}", {})[str(seed)] = value
    return results
