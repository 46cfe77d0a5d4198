"""What a network's files take, before it is trained: their size and their latency, of random weights."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reflux.components.advice.preflight.rehearsal import as_if_trained
from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.contract import made
from reflux.components.core.data.shards import Dataset, Images
from reflux.components.core.errors import UserError
from reflux.components.core.export.latency import latency
from reflux.components.core.export.network import fit_rows
from reflux.components.core.runtime import installed
from reflux.components.core.runtime.lineage import code_sha256
from reflux.components.core.runtime.machine import machine
from reflux.components.modalities.image.models.pixel_model import (
    PixelModel,
    parameter_count,
    pixel_model,
    seed_everything,
)
from reflux.components.stages.compress.ship import writer

KEPT = Path(".reflux/tune/files")
_IMAGES = 16
_ROUNDS = 3  # what else the machine does can only add to a time, so that the least of a few is nearest


@dataclass(frozen=True)
class Files:
    """The files of a network.

    Attributes:
        params: of the network.
        size_kb, latency_ms_p95: of each file that can ship, by its kind.
    """

    params: int
    size_kb: Mapping[str, float]
    latency_ms_p95: Mapping[str, float]

    def figures(self, kind: str) -> dict[str, float]:
        """The figures of a file that are known before training, by the names of gates."""
        sizes = {"size_kb": self.size_kb[kind], "latency_ms_p95": self.latency_ms_p95[kind]}
        return {**sizes, "params": float(self.params)}


def files_of(
    name: str, image_size: int, ships: str, dataset: Dataset, images: Images, runs: int, kept: Path = KEPT
) -> Files:
    """Export a network as ``compress`` will, and measure its files, or look up what was measured here before.

    Args:
        name: of the network.
        image_size: of its input, in pixels.
        ships: ``compress.ships``.
        dataset: whose images it takes.
        images: some of them [N, H, W, C].
        runs: to time, as in ``evaluate.latency_runs``.
        kept: where measurements are kept.

    Raises:
        UserError: the network is unknown, can't take such images or can't be exported.
    """
    file = kept / f"{_key(name, image_size, ships, dataset, runs)}.json"
    try:
        return Files(**read_json(file))
    except (UserError, TypeError):  # not measured yet, or damaged
        pass
    seed_everything(0)
    student = pixel_model(name, dataset.classes, image_size, dataset.channels, dataset.mean, dataset.std)
    pixels = fit_rows(images, np.arange(min(_IMAGES, len(images))), image_size, dataset.channels)
    as_if_trained(student, pixels)
    files = _measured(student, ships, pixels, runs)
    write_json(file, asdict(files))
    return files


def _measured(student: PixelModel, ships: str, pixels: Any, runs: int) -> Files:
    size_kb, late = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        write = writer(student, pixels)
        for kind, file in made(ships).items():
            if kind == "pt2":
                continue
            path = Path(folder, Path(file.name).name)
            write(kind, path)
            size_kb[kind] = path.stat().st_size / 1024
            late[kind] = min(latency(path, pixels, runs)["latency_ms_p95"] for _ in range(_ROUNDS))
    return Files(parameter_count(student), size_kb, late)


def _key(name: str, image_size: int, ships: str, dataset: Dataset, runs: int) -> str:
    facts = [name, image_size, list(made(ships)), asdict(dataset), runs, machine()]
    facts += [installed.builds("evaluate", ships), code_sha256("advice.tune.candidates")]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
