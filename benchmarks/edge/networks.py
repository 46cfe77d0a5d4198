"""The networks whose files are measured: the student of a run, and two others with random weights."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from reflux.components.advice.bench.measure import measure
from reflux.components.advice.bench.report import Row
from reflux.components.advice.preflight.rehearsal import as_if_trained
from reflux.components.core.data.shards import Pixels, Shard, open_shard
from reflux.components.core.export.network import sample
from reflux.components.modalities.image.models.pixel_model import PixelModel, load, pixel_model

STUDENT = "the default student"
OTHERS = {"resnet8x4": (28, 1), "mobilenetv3_small_100": (64, 3)}  # image size and channels
BATCHES = (1, 8)
CALIBRATION, STATISTICS, ASKED = 512, 64, 1000
Writer = Callable[[PixelModel, Pixels, Path], dict[str, Path]]


def untrained(name: str, image_size: int, channels: int, train: Shard, classes: int) -> PixelModel:
    """A network with random weights, and BatchNorm statistics of training images."""
    torch.manual_seed(0)
    names = tuple(map(str, range(classes)))
    model = pixel_model(name, names, image_size, channels, (0.28,) * channels, (0.35,) * channels)
    as_if_trained(model, sample(train.images, STATISTICS, model.spec))
    return model


def measured(run: Path, write_files: Writer) -> Iterator[tuple[str, Sequence[Row]]]:
    """Measure the files of each network, on the test images of a run.

    Args:
        run: the checkout whose student and images are taken.
        write_files: writes a model's files into a folder, the one that the others are compared with first.

    Raises:
        UserError: there was no run.
    """
    shards = run / "artifacts/ingest/shards"
    train, test = open_shard(shards / "train"), open_shard(shards / "test")
    student = load(run / "artifacts/distill/model.safetensors")
    some = np.linspace(0, len(test.labels) - 1, min(ASKED, len(test.labels))).round().astype(np.int64)
    few = Shard(np.asarray(test.images[some]), test.labels[some], test.ids[some])
    classes = student.spec.classes
    networks = {STUDENT: (student, test)}
    networks |= {name: (untrained(name, *shape, train, len(classes)), few) for name, shape in OTHERS.items()}
    for name, (model, images) in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(model, sample(train.images, CALIBRATION, model.spec), Path(folder))
            print(f"{name} …", flush=True)
            yield name, measure(files, images, classes, (1,), BATCHES, "edge").rows
