"""What distillation brings over several seeds: the default pipeline, run whole for each, in a copy of this checkout.

    .venv/bin/python -m benchmarks.seeds            # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.seeds 0 1 2 3 4

It prints a table and writes ``benchmarks/results/seeds.json``. Accuracies are of the frozen test split, the student's
and the control's at the checkpoint that validation data chose. The interval is Student's t over the seeds (95 %), which
are ``low`` and ``high`` in the file; it covers the randomness of the seeds, not that of the data sample. How busy the
machine is changes no accuracy; the number of its CPU threads moves the first decimal.

The row ``pseudo-labels`` is a second control: the same student on the same images and views, which learns only the
teacher's first choice for each (``distill.method=pseudo-labels``). What the student gains over it is owed to soft
labels, what it gains over the control also to more images. ``self-taught`` is a third: the student's teacher is its
control, so that what the student gains over it is owed to what the pretrained teacher alone knows. All students are
those that were distilled, whether they or their control ship.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.checkout import accuracies, copy_checkout, reflux_run
from benchmarks.harness.results import Figure, argument_parser, of_seeds, read, write

HARD = "pseudo-labels"
SELF = "self-taught"
FIRST = "self-supervised first"
_CONTROL = "control.safetensors"
_TAUGHT_BY_CONTROL = ("pretrain.model=resnet8_slim", f"pretrain.weights={_CONTROL}", "finetune.strategy=none")
# What is set in each, and whom it changes. The teacher and its soft labels are computed once for all.
ARMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    HARD: ((f"distill.method={HARD}",), ("student",)),
    SELF: ((*_TAUGHT_BY_CONTROL, "finetune.image_size=28"), ("student",)),
    FIRST: (("pretrain.mode=self-supervised", "pretrain.learns=student"), ("student", "control")),
}


def run(seed: int, checkout: Path) -> dict[str, float]:
    """Run the pipeline with a seed; returns accuracies in percent, and gains in points."""
    reflux_run(checkout, [f"seed={seed}"])
    found = _as_distilled(checkout)
    shutil.copy(checkout / "artifacts/control/model.safetensors", checkout / _CONTROL)
    params = checkout / "params.yaml"
    default = params.read_bytes()
    for arm, (settings, models) in ARMS.items():
        reflux_run(checkout, settings)
        params.write_bytes(default)
        of_arm = _as_distilled(checkout)
        found |= {f"{name}, {arm}": of_arm[name] for name in models}
    pairs = (
        ("student", "control"),
        ("student", f"student, {HARD}"),
        (f"student, {SELF}", "control"),
        ("student", f"student, {SELF}"),
        ("student", "teacher"),
        (f"student, {FIRST}", f"control, {FIRST}"),
        (f"student, {FIRST}", "student"),
    )
    return found | {f"{one} - {other}": found[one] - found[other] for one, other in pairs}


def _as_distilled(checkout: Path) -> dict[str, float]:
    found = accuracies(checkout)
    return found | {"student": found.pop("distilled", found["student"])}


def figures_of(results: Mapping[int, Mapping[str, float]]) -> list[Figure]:
    """Each row's mean over the seeds with its interval, and the row of each seed alone."""
    figures = []
    for name in next(iter(results.values())):
        unit = "points" if " - " in name else "%"
        figures.append(of_seeds(name, [result[name] for result in results.values()], unit))
        figures += [of_seeds(f"{name}, seed {seed}", [result[name]], unit) for seed, result in results.items()]
    return figures


def table(figures: Sequence[Figure]) -> str:
    """Every seed's results and their means, as Markdown."""
    values = {figure.name: figure.value for figure in figures}
    means = [figure for figure in figures if ", seed " not in figure.name]
    seeds = dict.fromkeys(match[1] for name in values if (match := re.search(r", seed (\d+)$", name)))
    lines = [f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean ± 95 % |"]
    lines.append(f"| --- |{' ---: |' * len(seeds)} ---: |")
    for mean in means:
        cells = " | ".join(f"{values[f'{mean.name}, seed {seed}']:.2f}" for seed in seeds)
        lines.append(f"| {mean.name} | {cells} | {mean.value:.2f} ± {mean.high - mean.value:.2f} |")
    return "\n".join(lines)


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    result = read("seeds", folder)
    return f"{table(result.figures)}\n\n{result}"


def printed(folder: Path) -> str:
    """How old the run is that the README shows: it is the one of seed 0."""
    result = read("seeds", folder)
    return f"It is the run of seed 0 in `seeds.json`: {result.measured_at}.{result.since}"


def main() -> None:
    """Print the table in Markdown and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    if len(options.seeds) < 2:
        parser.error("an interval needs at least two seeds, for example: python -m benchmarks.seeds 0 1 2")
    with tempfile.TemporaryDirectory() as scratch:
        checkout = copy_checkout(Path(scratch))
        figures = figures_of({seed: run(seed, checkout) for seed in options.seeds})
    print(f"\n{table(figures)}\n\nWritten: {write('seeds', figures, options.out)}")


if __name__ == "__main__":
    main()
