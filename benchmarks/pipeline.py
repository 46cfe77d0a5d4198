"""What orchestration costs: the default pipeline on a fresh copy of this checkout, and again when nothing changed.

    .venv/bin/python -m benchmarks.pipeline                 # some minutes

``orchestration_over_training`` is the wall time of the first ``reflux run``, from the command to its prompt, divided by
the sum of the wall times of the stages that compute with a network: finetune, label, distill and control. The last two
run side by side, one core each, and both count. ``wall_over_busy`` is the stricter reading: divided by the time in
which at least one of the four was running. Ingest, validation, export, evaluation, registration and every start of a
process are in the wall time alone. ``unchanged_rerun_s`` is the wall time of ``reflux run`` when nothing changed. Low
and high are the fastest and slowest repetition.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import RESULTS, ROOT, of_rounds, write
from benchmarks.seeds import LEFT_BEHIND


def reflux_run(folder: Path) -> float:
    """Seconds of one ``reflux run``."""
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "run"]
    subprocess.run(command, cwd=folder, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}, check=True)
    return time.monotonic() - began


def training_seconds(artifacts: Path) -> dict[str, float]:
    """How long each stage trained or labelled."""
    names = ("finetune", "label", "distill", "control")
    return {name: json.loads((artifacts / name / "run.json").read_text(encoding="utf-8"))["wall_s"] for name in names}


def main() -> None:
    """Measure, and write ``pipeline.json``."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--fresh", type=int, default=1, help="first runs, each on a copy of its own")
    ask.add_argument("--reruns", type=int, default=3, help="unchanged runs after the last of them")
    ask.add_argument("--out", type=Path, default=RESULTS)
    asked = ask.parse_args()
    ratios, strict, trainings = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(asked.fresh):
            folder = Path(scratch) / f"copy-{number}" / "reflux"
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
            wall = reflux_run(folder)
            stages = training_seconds(folder / "artifacts")
            trainings.append(sum(stages.values()))
            ratios.append(wall / trainings[-1])
            strict.append(wall / (trainings[-1] - min(stages["distill"], stages["control"])))
        reruns = [reflux_run(folder) for _ in range(asked.reruns)]
    figures = [
        of_rounds("orchestration_over_training", ratios, "x"),
        of_rounds("wall_over_busy", strict, "x"),
        of_rounds("training_s", trainings, "s"),
        of_rounds("unchanged_rerun_s", reruns, "s"),
    ]
    path = write("pipeline", figures, asked.out)
    for figure in figures:
        print(f"{figure.name:32} {figure.value:8.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}")
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
