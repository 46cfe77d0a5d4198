"""What each way of transfer brings where labels are few: MNIST teaches scikit-learn's digits.

    .venv/bin/python -m benchmarks.transfer            # seeds 0 to 4
    .venv/bin/python -m benchmarks.transfer 5 6        # two more

It runs the stages ``ingest``, ``pretrain`` and ``finetune`` with the labels of 1, 5, 10 and 50 digits a class; all
others but 100 of validation and 600 of test have none. Each teacher starts

- from random weights (``from scratch``),
- from what ``pretrain.mode=supervised`` has learned of the 1,000 training images of MNIST that ship with the tests, or
- from what ``pretrain.mode=self-supervised`` has learned of all digits that are not held out, without their labels,

and is fine-tuned on the labels of the digits alone, or with ``ingest.source_domain``, those of MNIST in the same
batches: by cross-entropy (``none``), or also by a method of ``finetune.adaptation``, DANN's with a weight of 0.1. All
take about as many steps. Left out are adaptation with ``feature-extraction``, which has no features to adapt; with
``gradual-unfreezing`` and ``l2_sp``, which differ from ``full`` in what moves and not in what is learned; and with 10
and 50 labels a class.

It prints tables and writes ``benchmarks/results/transfer.json``: accuracies of the test digits in percent, with
Student's t over the seeds (95 %). A difference is that of two teachers of the same seed. The file is written after each
number of labels, and what it has is not measured again. About 5 minutes a seed of one idle core.
"""

import os
import shutil
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.results import PICTURES, RESULTS, ROOT, argument_parser, read
from benchmarks.transfer.few_digits import MNIST, TEST, write_digits
from benchmarks.transfer.grid import (
    Accuracies,
    by_labels,
    counted,
    fine_tuned,
    measure,
    named,
    plot,
    run_stages,
    table,
)

LABELS, ADAPTED = (1, 5, 10, 50), (1, 5)  # of each class; of each class where MNIST is the source domain
PAGE, PICTURE = ROOT / "components/stages/finetune", PICTURES / "transfer.png"
STEPS = 200
VAL = 100  # images: each epoch validates, and with one label a class that is each step
BATCH = 32
VIEWS = "{shift: 0.1, flip: false, rotate_deg: 10}"
RECIPE = (
    *("ingest.source=data/digits", "ingest.image_size=16", "ingest.channels=1", "run.device=cpu"),
    *("pretrain.weights=random", "pretrain.model=resnet8_slim", "finetune.image_size=16", "finetune.layer_decay=1"),
    *(f"finetune.batch_size={BATCH}", "finetune.lr=0.003", f"finetune.augment={VIEWS}"),
)
RANDOM, SUPERVISED, SELF_SUPERVISED = "random", "supervised", "self-supervised"
STARTS = {
    RANDOM: (),
    SUPERVISED: (
        *("pretrain.mode=supervised", f"pretrain.source={MNIST}", "pretrain.steps=600", "pretrain.batch_size=64"),
        f"pretrain.augment={VIEWS}",
    ),
    SELF_SUPERVISED: (
        *("pretrain.mode=self-supervised", "pretrain.steps=200", "pretrain.batch_size=64"),
        "pretrain.augment={shift: 0.1, flip: false, crop_scale: 0.5, rotate_deg: 15}",
    ),
}


@dataclass(frozen=True)
class Strategy:
    """A way of transfer: a key of ``STARTS``, the settings of fine-tuning, and whether it is adapted, too."""

    start: str
    settings: tuple[str, ...]
    adapts: bool = True


LEARNS_BATCH_NORM = "finetune.freeze_batch_norm=false"  # which random weights have none of
SSL = "self-supervised, then lp-ft"
STRATEGIES = {
    "from scratch": Strategy(RANDOM, ("finetune.strategy=full", LEARNS_BATCH_NORM)),
    "feature-extraction": Strategy(SUPERVISED, ("finetune.strategy=feature-extraction",), adapts=False),
    "full": Strategy(SUPERVISED, ("finetune.strategy=full",)),
    "lp-ft": Strategy(SUPERVISED, ("finetune.strategy=lp-ft",)),
    "gradual-unfreezing": Strategy(SUPERVISED, ("finetune.strategy=gradual-unfreezing",), adapts=False),
    "full, l2_sp 0.01": Strategy(SUPERVISED, ("finetune.strategy=full", "finetune.l2_sp=0.01"), adapts=False),
    SSL: Strategy(SELF_SUPERVISED, ("finetune.strategy=lp-ft",)),
}
ADAPTATIONS = {
    "none": (),
    "dan": ("finetune.adaptation=dan",),
    "deep-coral": ("finetune.adaptation=deep-coral",),
    "dann": ("finetune.adaptation=dann", "finetune.adaptation_weight=0.1"),
}
ADAPTED_ARMS = [name for name, strategy in STRATEGIES.items() if strategy.adapts]
COMPARED = (*((name, "full") for name in STRATEGIES if name not in ("full", SSL)), (SSL, "from scratch"))
PAIRS = (
    *COMPARED,
    *((f"{name}, none", name) for name in ADAPTED_ARMS),
    *((f"{name}, {method}", f"{name}, none") for name in ADAPTED_ARMS for method in ADAPTATIONS if method != "none"),
)


def run(
    folder: Path, seed: int, known: Mapping[int, Accuracies], options: Namespace
) -> Iterator[tuple[int, Accuracies]]:
    """Train the teachers of a seed that are not known; yields the accuracy of each arm by labels of a class."""
    for labels in LABELS:
        if labels in known:
            continue
        place = folder / str(labels)
        given = (*RECIPE, f"seed={seed}", f"run.threads={options.threads}")
        write_digits(place / "data/digits", labels, seed, (TEST, VAL))
        starts = {name: _start(folder, place, name, given) for name in STARTS}
        found = {}
        of_digits = (*given, f"finetune.epochs={epochs(labels, with_mnist=False)}")
        for name, strategy in STRATEGIES.items():
            found[name] = fine_tuned(place, (*of_digits, *strategy.settings), starts[strategy.start])
        if labels in ADAPTED:
            of_both = (*given, f"ingest.source_domain={MNIST}", f"finetune.epochs={epochs(labels, with_mnist=True)}")
            run_stages(place, ["ingest"], of_both)
            for name in ADAPTED_ARMS:
                strategy = STRATEGIES[name]
                for method, settings in ADAPTATIONS.items():
                    chosen = (*of_both, *strategy.settings, *settings)
                    found[f"{name}, {method}"] = fine_tuned(place, chosen, starts[strategy.start])
        yield labels, found


def _start(folder: Path, place: Path, name: str, given: tuple[str, ...]) -> Path:
    """The file of the weights that teachers start from; what MNIST has taught is the same for all labels."""
    kept = (folder if name == SUPERVISED else place) / f"{name}.safetensors"
    if not kept.is_file():
        run_stages(place, ["ingest", "pretrain"], (*given, *STARTS[name]))
        shutil.copy(place / "artifacts/pretrain/model.safetensors", kept)
    return kept


def epochs(labels: int, with_mnist: bool) -> int:
    """As many as make about ``STEPS`` steps."""
    images = 10 * labels
    if with_mnist:
        return STEPS // ((images + 850) // (2 * BATCH))  # 15 % of MNIST's 1,000 training images are held out
    return STEPS // max(1, images // min(BATCH, images))


def section(folder: Path) -> str:
    """The page's tables of the strategies from the results in a folder, as Markdown."""
    result = read("transfer", folder)
    gains = [f"{one} - {other}" for one, other in COMPARED]
    picture = f"![Accuracies against labels a class]({os.path.relpath(PICTURE, PAGE)})"
    return "\n\n".join(
        [by_labels(result, LABELS, list(STRATEGIES)), by_labels(result, LABELS, gains), picture, str(result)]
    )


def adapted_section(folder: Path) -> str:
    """The page's tables of a source domain and adaptation from the results in a folder, as Markdown."""
    result = read("transfer", folder)
    accuracies, gains = {}, {}
    for labels in ADAPTED:
        for name in ADAPTED_ARMS:
            arms = {method: f"{name}, {method}" for method in ADAPTATIONS}
            none = arms["none"]
            row = f"{counted(labels)}, {name}"
            accuracies[row] = [named(labels, arm) for arm in (name, *arms.values())]
            compared = [(none, name), *((arm, none) for arm in arms.values() if arm != none)]
            gains[row] = [named(labels, f"{one} - {other}") for one, other in compared]
    methods = [f"`{method}`" for method in ADAPTATIONS]
    against = ["`none` - the digits alone", *(f"{method} - `none`" for method in methods[1:])]
    return "\n\n".join(
        [table(result, ["the digits alone", *methods], accuracies), table(result, against, gains), str(result)]
    )


def both(folder: Path) -> str:
    """All tables."""
    return f"{section(folder)}\n\n{adapted_section(folder)}"


def draw(folder: Path = RESULTS, path: Path = PICTURE) -> None:
    """Draw the picture of the results in a folder: the strategies, and a panel for each that is adapted."""
    labels_alone = {name: name for name in STRATEGIES}
    with_mnist = {
        f"{name}, and MNIST": {"without MNIST": name, **{method: f"{name}, {method}" for method in ADAPTATIONS}}
        for name in ADAPTED_ARMS
    }
    plot(read("transfer", folder), {"the digits' labels alone": labels_alone, **with_mnist}, LABELS, path)


if __name__ == "__main__":
    measure("transfer", argument_parser(__doc__), range(5), run, PAIRS, both)
