"""What distillation brings over several seeds: the default pipeline, run whole for each, in a copy of this checkout.

    .venv/bin/python -m benchmarks.seeds            # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.seeds 0 1 2 3 4

It prints a table and writes ``benchmarks/results/seeds.json``. Accuracies are of the frozen test split, the student's
and the control's at the checkpoint that validation data chose. The interval is Student's t over the seeds (95 %), which
are ``low`` and ``high`` in the file; it covers the randomness of the seeds, not that of the data sample.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.checkout import accuracies, copy_checkout, reflux_run
from benchmarks.results import Figure, argument_parser, of_seeds, write

UNITS = {"student - control": "points", "student - teacher": "points", "seconds": "s"}


def run(seed: int, checkout: Path) -> dict[str, float]:
    """Run the pipeline with a seed; returns accuracies in percent, the gain in points and the wall time in seconds."""
    seconds = reflux_run(checkout, [f"seed={seed}"])
    accuracy = accuracies(checkout)
    gains = {f"student - {other}": accuracy["student"] - accuracy[other] for other in ("control", "teacher")}
    return {**accuracy, **gains, "seconds": seconds}


def table(figures: Sequence[Figure], results: Mapping[int, Mapping[str, float]]) -> str:
    """Every seed's results and their means, as Markdown."""
    lines = [f"| | {' | '.join(f'seed {seed}' for seed in results)} | mean ± 95 % |"]
    lines.append(f"|---|{'---:|' * len(results)}---:|")
    for figure in figures:
        cells = " | ".join(f"{result[figure.name]:.2f}" for result in results.values())
        lines.append(f"| {figure.name} | {cells} | {figure.value:.2f} ± {figure.high - figure.value:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table in Markdown and write the means with their 95 % intervals."""
    parser = argument_parser(__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    if len(options.seeds) < 2:
        parser.error("an interval needs at least two seeds, for example: python -m benchmarks.seeds 0 1 2")
    with tempfile.TemporaryDirectory() as scratch:
        checkout = copy_checkout(Path(scratch))
        results = {seed: run(seed, checkout) for seed in options.seeds}
    names = next(iter(results.values()))
    figures = [of_seeds(name, [r[name] for r in results.values()], UNITS.get(name, "%")) for name in names]
    print(f"\n{table(figures, results)}\n\nWritten: {write('seeds', figures, options.out)}")


if __name__ == "__main__":
    main()
