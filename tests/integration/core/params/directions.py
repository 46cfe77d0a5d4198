"""The direction in which a param moves a figure of its run: one that is inverted would move it the other way."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from tests.integration.core.params.rows import ROWS

MORE, LESS = True, False

_TRAINING = {  # the values of rows.py against those that the runs have otherwise
    "weight_decay": ("norm", LESS),
    "lr": ("distance", MORE),
    "ema_decay": ("distance", LESS),
    "warmup": ("distance", LESS),
}
DIRECTIONS: dict[str, tuple[str, bool]] = {
    **{f"{section}.{name}": moves for section in ("finetune", "student") for name, moves in _TRAINING.items()},
    "finetune.batch_size": ("steps", MORE),
    "finetune.epochs": ("images", LESS),
    "finetune.layer_decay": ("distance", LESS),
    "finetune.rounds": ("rows", MORE),
    "finetune.round_epochs": ("rows", MORE),
    "student.batch_size": ("images", MORE),
    "student.steps": ("steps", LESS),
    "student.eval_every": ("rows", MORE),
    "pretrain.steps": ("distance", MORE),
}

_GATES = {"min": False, "max": False, "confidence": False, "device": None}  # missed, missed, missed, not measured there
# What the row of a param ends with, where that can be said.
ENDS: dict[str, Any] = {
    **{name: _GATES[name.rpartition(".")[2]] for name in ROWS if name.startswith("registry.gates.")},
    **{f"registry.slices.gates.*.accuracy.{bound}": False for bound in ("min", "max", "confidence")},
    "project.name": {"other"},
    "run.threads": 2,
    "run.deterministic": True,
    "label.batch_size": 16,
    "validate.near_duplicate_bits": False,
    "validate.max_class_shift": True,
    "registry.slices.min_count": None,
    "registry.slices.gates": None,
    "registry.champion.margin": False,
    "registry.champion.alpha": True,
    "registry.champion.smaller": True,
    "registry.champion.faster": True,
    "monitor.n": True,
}


def figures(folder: Path) -> dict[str, Any]:
    """The figures of what a stage has left."""
    found: dict[str, Any] = {}
    if (file := folder / "model.safetensors").is_file():
        weights = load_file(file)
        learned = [weights[name].ravel() for name in sorted(weights) if "running_" not in name]
        found["weights"] = np.concatenate([each.astype(np.float64) for each in learned])
        found["norm"] = float(np.linalg.norm(found["weights"]))
    if (file := folder / "history.parquet").is_file():
        table = pq.read_table(file)
        found["rows"] = table.num_rows
        found |= {"steps": max(table["step"].to_pylist()), "images": max(table["images"].to_pylist())}
    return found
