"""What distillation brings over several seeds: the default pipeline, run whole for each, in a copy of this checkout.

    .venv/bin/python -m benchmarks.seeds            # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.seeds 0 1 2 3 4

It prints a table and writes ``benchmarks/results/seeds.json``. Accuracies are of the frozen test split, the student's
and the control's at the checkpoint that validation data chose. The interval is Student's t over the seeds (95 %), which
are ``low`` and ``high`` in the file; it holds the seeds' randomness, not that of the data sample.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scipy import stats

from benchmarks.results import ROOT, Figure, write

LEFT_BEHIND = (".venv", ".git", ".reflux", "artifacts", "mlartifacts", "mlflow.db*", "*_cache", "cache", "tmp")
UNITS = {"student - control": "points", "student - teacher": "points", "seconds": "s"}


def run(seed: int, folder: Path) -> dict[str, float]:
    """Run the pipeline with a seed; returns accuracies in percent, the gain in points and the wall time in seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "run", "-S", f"seed={seed}"]
    subprocess.run(command, cwd=folder, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}, check=True)
    metrics = json.loads((folder / "artifacts/evaluate/metrics.json").read_text(encoding="utf-8"))
    student = metrics["shipped"]["onnx"]["accuracy"]
    teacher, control = metrics["teacher"]["accuracy"], metrics["control"]["accuracy"]
    return {
        "teacher": 100 * teacher,
        "student": 100 * student,
        "control": 100 * control,
        "student - control": 100 * (student - control),
        "student - teacher": 100 * (student - teacher),
        "seconds": time.monotonic() - began,
    }


def interval(values: list[float]) -> float:
    """Half the width of the 95 % t interval of the mean."""
    spread = statistics.stdev(values) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1)) * spread


def main() -> None:
    """Print the table in Markdown and write the means with their 95 % intervals."""
    seeds = [int(text) for text in sys.argv[1:]] or [0, 1, 2]
    if len(seeds) < 2:
        sys.exit("Error: an interval needs at least two seeds, for example: python -m benchmarks.seeds 0 1 2")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "reflux"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        results = [run(seed, folder) for seed in seeds]
    print(f"\n| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean ± 95 % |")
    print(f"|---|{'---:|' * len(seeds)}---:|")
    figures = []
    for name in results[0]:
        values = [result[name] for result in results]
        cells = " | ".join(f"{value:.2f}" for value in values)
        mean, half = round(statistics.mean(values), 2), round(interval(values), 2)
        print(f"| {name} | {cells} | {mean:.2f} ± {half:.2f} |")
        figures.append(Figure(name, mean, mean - half, mean + half, UNITS.get(name, "%")))
    print(f"\nWritten: {write('seeds', figures).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
