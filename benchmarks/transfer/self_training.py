"""What self-training brings a teacher where labels are few: scikit-learn's digits, 8 pixels, a network from scratch.

    .venv/bin/python -m benchmarks.transfer.self_training          # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.transfer.self_training 3 4      # two more

It runs the stage ``finetune`` with the labels of 5 and of 10 images a class; all others but 200 of validation and 600
of test have none. ``one round`` learns from the labels for as long as that helps: a fifth of its epochs makes teachers
of 82 to 85 % with 5 labels, whose rounds then gain what more epochs would have gained. ``three rounds`` are
``finetune.rounds=3``, of which validation images choose one. It prints a table and writes
``benchmarks/results/self_training.json``: accuracies of the test images in percent, with Student's t over the seeds
(95 %). About 6 minutes a seed of one idle core.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.harness.results import argument_parser, read
from benchmarks.transfer.few_digits import write_digits
from benchmarks.transfer.grid import Accuracies, by_labels, fine_tuned, measure, run_stages

LABELS = (5, 10)  # of each class
ONE, THREE = "one round", "three rounds"
ARMS = {ONE: "finetune.rounds=1", THREE: "finetune.rounds=3"}
PAIRS = ((THREE, ONE),)
RECIPE = (
    *("ingest.source=data/digits", "ingest.image_size=8", "ingest.channels=1", "pretrain.weights=random"),
    *("pretrain.model=resnet20", "finetune.image_size=16", "finetune.layer_decay=1"),
    *("finetune.freeze_batch_norm=false", "finetune.epochs=300", "finetune.batch_size=32", "finetune.lr=0.003"),
    *("finetune.augment={shift: 0.1, flip: false, rotate_deg: 10}", "finetune.round_epochs=20"),
    "finetune.round_augment={shift: 0.15, flip: false, crop_scale: 0.7, rotate_deg: 20, erase: 0.3}",
    "run.device=cpu",
)


def run(
    folder: Path, seed: int, known: Mapping[int, Accuracies], options: Namespace
) -> Iterator[tuple[int, Accuracies]]:
    """Train the teachers of a seed that are not known; yields the accuracy of each arm by labels of a class."""
    for labels in LABELS:
        if labels in known:
            continue
        place = folder / str(labels)
        write_digits(place / "data/digits", labels, seed)
        given = (*RECIPE, f"seed={seed}", f"run.threads={options.threads}")
        run_stages(place, ["ingest", "pretrain"], given)
        yield labels, {arm: fine_tuned(place, (*given, rounds)) for arm, rounds in ARMS.items()}


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    result = read("self_training", folder)
    return "\n\n".join([by_labels(result, LABELS, [*ARMS, f"{THREE} - {ONE}"]), str(result)])


if __name__ == "__main__":
    measure("self_training", argument_parser(__doc__), range(3), run, PAIRS, section)
