"""What benchmarks with few labels share: scikit-learn's digits, of which few have one, over several seeds."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.results import Figure, Result, argument_parser, write
from reflux.components.core.images.shards import Pixels

VAL, TEST = 200, 600
Results = Mapping[int, Sequence[Mapping[str, float]]]


def digits(
    labels: int, seed: int, held_out: tuple[int, int] = (TEST, VAL)
) -> tuple[Pixels, NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """All digits with their labels, and the rows of each split in an order of the seed.

    Args:
        labels: of each class to train on; the other images that are not held out are unlabeled.
        seed: of the order.
        held_out: images to test and to validate on.

    Returns:
        Images [N, 8, 8], labels [N], and the rows of train, val, test and unlabeled.
    """
    from sklearn.datasets import load_digits

    known = load_digits()
    images, targets = np.rint(known.images * 255 / 16).astype(np.uint8), known.target.astype(np.int64)
    test, val, rest = np.split(np.random.default_rng(seed).permutation(len(images)), [held_out[0], sum(held_out)])
    train = np.concatenate([rest[targets[rest] == number][:labels] for number in range(10)])
    return images, targets, {"train": train, "val": val, "test": test, "unlabeled": np.setdiff1d(rest, train)}


def table(result: Result, numbers: Sequence[int], names: Sequence[str]) -> str:
    """A row for each name and a column for each number of labels, as Markdown; in percent or points."""
    head = " | ".join(f"{labels} label{'s' if labels > 1 else ''} a class" for labels in numbers)
    lines = [f"| | {head} |", f"| --- |{' ---: |' * len(numbers)}"]
    for name in names:
        found = [result[f"{labels} labels a class, {name}"] for labels in numbers]
        lines.append(f"| {name} | {' | '.join(f'{each.value:.1f} ± {each.high - each.value:.1f}' for each in found)} |")
    return "\n".join([*lines, "", str(result)])


def measure(
    name: str,
    about: str | None,
    numbers: Sequence[int],
    run: Callable[[Path, int, int, int], Mapping[str, float]],
    figures_of: Callable[[Results], list[Figure]],
    section: Callable[[Path], str],
) -> None:
    """The command of a benchmark: run it for each seed and number of labels, print its table and write its figures.

    Args:
        name: of the results file.
        about: the module's docstring, for ``--help``.
        numbers: of labels of a class.
        run: in an empty folder, with a number of labels, a seed and torch's threads; returns percent by name.
        figures_of: the figures of results by number of labels, a mapping a seed.
        section: the table of the results in a folder.
    """
    parser = argument_parser(about)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves it to torch")
    options = parser.parse_args()
    out = options.out.absolute()
    results: dict[int, list[Mapping[str, float]]] = {labels: [] for labels in numbers}
    for seed in options.seeds:
        for labels in numbers:
            with tempfile.TemporaryDirectory() as scratch:
                results[labels].append(run(Path(scratch), labels, seed, options.threads))
    written = write(name, figures_of(results), out)
    print(f"\n{section(out)}\n\nWritten: {written}")
