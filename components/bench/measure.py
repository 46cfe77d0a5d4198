"""Files of students measured side by side: accuracy, agreement, bytes, memory and time."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import FORMATS
from reflux.components.core.errors import UserError
from reflux.components.core.export.latency import ROUNDS, RUNS, batch_of, in_turn
from reflux.components.core.export.network import Network, fit_rows, load
from reflux.components.core.images.shards import Pixels, Shard

_CODE = Path(__file__).parents[3]  # where `python -m` finds this package, whatever the working folder is
_TIMED_IMAGES = 32
_SECONDS_A_SETTING = 15.0  # at most about so many for all files at one number of threads and images
_FEWEST_RUNS = 3

Answers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Speed:
    """A file's time at a number of threads and of images at once.

    Attributes:
        threads, batch: these numbers.
        ms_p50, ms_p95: on the wall, for one batch.
        cpu: processor time in multiples of the first file's, with its interval from ``cpu_low`` to ``cpu_high``.
    """

    threads: int
    batch: int
    ms_p50: float
    ms_p95: float
    cpu: float
    cpu_low: float
    cpu_high: float


@dataclass(frozen=True)
class Row:
    """A file.

    Attributes:
        name: for people.
        runtime: that ran it.
        sha256, size_bytes: of the file.
        accuracy: on the validation split.
        agreement: the share of its images on which it predicts what the first file predicts.
        load_ms, peak_mb: of a process that does nothing else: processor time from the file to its first logits, and the
            most memory.
        speeds: one for each number of threads and images.
    """

    name: str
    runtime: str
    sha256: str
    size_bytes: int
    accuracy: float
    agreement: float
    load_ms: float
    peak_mb: float
    speeds: tuple[Speed, ...]


def measure(
    files: Mapping[str, Path],
    val: Shard,
    classes: int,
    threads: Sequence[int],
    batches: Sequence[int],
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure files against the first of them.

    Args:
        files: by their names for people.
        val: the labeled images to answer.
        classes: of the dataset.
        threads, batches: numbers of threads and of images at once, each with each.
        say: takes what is done now.

    Raises:
        UserError: a file is damaged, takes something else than raw pixels or has other classes.
    """
    speeds: dict[str, list[Speed]] = {name: [] for name in files}
    predicted: dict[str, Answers] = {}
    for count in threads:
        networks = {name: load(path, count) for name, path in files.items()}
        for name, network in networks.items() if not predicted else ():
            say(f"{name}: accuracy")
            predicted[name] = _answers(name, network, val, classes)
        for batch in batches:
            say(f"speed with {count} thread{'s' * (count > 1)}, {batch} image{'s' * (batch > 1)} at once")
            for name, speed in _raced(networks, val, count, batch).items():
                speeds[name].append(speed)
    first, rows = next(iter(predicted.values())), []
    for name, path in files.items():
        say(f"{name}: load and memory")
        alone = _alone(path, _timed(networks[name], val, max(batches))[: max(batches)])
        accuracy, agreement = (float((predicted[name] == other).mean()) for other in (val.labels, first))
        facts = (name, FORMATS[path.suffix].runtime, sha256_file(path), path.stat().st_size, accuracy, agreement)
        rows.append(Row(*facts, alone["load_ms"], alone["peak_mb"], tuple(speeds[name])))
    return rows


def _answers(name: str, network: Network, val: Shard, classes: int) -> Answers:
    """The predicted class of each image.

    Raises:
        UserError: the file has other classes than the dataset.
    """
    logits = network.logits(val.images)
    if logits.shape[1] != classes:
        raise UserError(
            f"{name} tells {logits.shape[1]} classes apart, and the validation images here have {classes}: give files "
            "of this dataset."
        )
    return logits.argmax(axis=1)


def _timed(network: Network, val: Shard, batch: int) -> Pixels:
    """The images that are timed: at least one batch, repeated where the split is smaller."""
    rows = np.arange(max(_TIMED_IMAGES, batch)) % len(val.images)
    return fit_rows(val.images, rows, network.image_size, network.channels)


def _raced(networks: Mapping[str, Network], val: Shard, threads: int, batch: int) -> dict[str, Speed]:
    runs = [batch_of(network.run, _timed(network, val, batch), batch) for network in networks.values()]
    for run in runs:
        run(0)  # the first run allocates
    began = time.perf_counter()
    for run in runs:
        run(1)
    affords = int(_SECONDS_A_SETTING / ROUNDS / (time.perf_counter() - began))
    repeats = max(_FEWEST_RUNS, min(RUNS, affords))
    turns = in_turn(runs, repeats, block=repeats, threads=threads)
    speeds = {}
    for number, name in enumerate(networks):
        middle, late = np.percentile(turns.wall[..., number], [50, 95]) * 1000
        speeds[name] = Speed(threads, batch, float(middle), float(late), *turns.ratio(number, 0))
    return speeds


def _alone(path: Path, pixels: Pixels) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        np.save(images := Path(folder, "pixels.npy"), pixels)
        command = [sys.executable, "-m", "reflux.components.bench.alone", str(path.resolve()), str(images)]
        done = subprocess.run(command, cwd=_CODE, check=True, capture_output=True, text=True)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts
