"""What self-training brings a teacher where labels are few: scikit-learn's digits, 8 pixels, a network from scratch.

    .venv/bin/python -m benchmarks.transfer          # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.transfer 0 1 2 3 4

It runs the stage ``finetune`` with the labels of 5 and of 10 images a class; all others but 200 of validation and 600
of test have none. ``one round`` learns from the labels for as long as that helps: a fifth of its epochs makes teachers
of 82 to 85 % with 5 labels, whose rounds then gain what more epochs would have gained. ``three rounds`` are
``finetune.rounds=3``, of which validation images choose one. It prints a table and writes
``benchmarks/results/transfer.json``: accuracies of the test images in percent, with Student's t over the seeds (95 %).
Some minutes of two idle cores.
"""

import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.results import ROOT, Figure, of_seeds, read
from benchmarks.transfer.few_digits import Results, digits, measure, table
from reflux.components.core.artifacts import write_json
from reflux.components.core.images.shards import UNLABELED, open_shard
from reflux.components.core.inference import validate
from reflux.components.core.models.pixel_model import load, pixel_model, save
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.finetune.__main__ import main as finetune

LABELS = (5, 10)  # of each class
CLASSES = tuple("0123456789")
NETWORK, SIZE = "resnet20", 16
ARMS = {"one round": "finetune.rounds=1", "three rounds": "finetune.rounds=3"}
RECIPE = (
    *("pretrain.weights=random", f"pretrain.model={NETWORK}", f"finetune.image_size={SIZE}", "finetune.layer_decay=1"),
    *("finetune.freeze_batch_norm=false", "finetune.epochs=300", "finetune.batch_size=32", "finetune.lr=0.003"),
    *("finetune.augment={shift: 0.1, flip: false, rotate_deg: 10}", "finetune.round_epochs=20"),
    "finetune.round_augment={shift: 0.15, flip: false, crop_scale: 0.7, rotate_deg: 20, erase: 0.3}",
    "run.device=cpu",
)


def run(folder: Path, labels: int, seed: int, threads: int) -> dict[str, float]:
    """Train the teachers of one draw of labels in an empty folder; returns the accuracy of each arm in percent."""
    accuracies = {}
    with chdir(folder):
        _write_inputs(labels, seed)
        test = open_shard(Path("artifacts/ingest/shards/test"))
        for arm, rounds in ARMS.items():
            for name in ("dvc.yaml", "params.yaml"):
                shutil.copy(ROOT / name, name)
            params = override_params([*RECIPE, f"seed={seed}", f"run.threads={threads}", rounds])
            finetune(Stage("finetune", params))
            teacher = load(Path("artifacts/finetune/model.safetensors"))
            accuracies[arm] = 100 * validate(teacher, test, torch.device("cpu"))[1]
    return accuracies | {"three rounds - one round": accuracies["three rounds"] - accuracies["one round"]}


def _write_inputs(labels: int, seed: int) -> None:
    """Write what the stages before leave: digits in an order of the seed, and a network with random weights."""
    images, targets, splits = digits(labels, seed)
    for name, rows in splits.items():
        shard, ordered = Path("artifacts/ingest/shards", name), np.sort(rows)
        shard.mkdir(parents=True)
        known = targets[ordered] if name != "unlabeled" else np.full(len(rows), UNLABELED)
        for part, values in (
            ("images", images[ordered, ..., None]),
            ("labels", known),
            ("ids", ordered.astype(np.uint64)),
        ):
            np.save(shard / f"{part}.npy", values)
    Path("artifacts/ingest/source-domain").mkdir()
    facts = {"classes": CLASSES, "image_size": 8, "channels": 1, "mean": [0.3], "std": [0.37]}
    write_json(Path("artifacts/ingest/images.json"), facts)
    torch.manual_seed(seed)
    network = pixel_model(NETWORK, CLASSES, SIZE, 1, (0.3,), (0.37,))
    Path("artifacts/finetune").mkdir()
    save(network, Path("artifacts/pretrain/model.safetensors"))


def figures_of(results: Results) -> list[Figure]:
    """The mean of each arm over the seeds, by the number of labels of each class."""
    return [
        of_seeds(f"{labels} labels a class, {name}", [seed[name] for seed in seeds], "points" if " - " in name else "%")
        for labels, seeds in results.items()
        for name in seeds[0]
    ]


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    return table(read("transfer", folder), LABELS, [*ARMS, "three rounds - one round"])


if __name__ == "__main__":
    measure("transfer", __doc__, LABELS, run, figures_of, section)
