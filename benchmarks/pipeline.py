"""What orchestration costs: the default pipeline on a fresh copy of this checkout, and again when nothing changed.

    .venv/bin/python -m benchmarks.pipeline                 # some minutes

``orchestration_over_training`` is the wall time of the first ``reflux run``, from the command to its prompt, divided by
the time in which at least one stage that computes with a network (finetune, label, distill, control) was running:
``wall_s`` of finetune, of label, and the longer of distill's and control's, which run side by side. Ingest, validation,
export, evaluation, registration and every start of a process count as orchestration. ``unchanged_rerun_s`` is the wall
time of ``reflux run`` when nothing changed. Low and high are the fastest and slowest repetition.
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


def training_seconds(artifacts: Path) -> float:
    """How long at least one stage was training or labelling."""
    names = ("finetune", "label", "distill", "control")
    wall = {name: json.loads((artifacts / name / "run.json").read_text(encoding="utf-8"))["wall_s"] for name in names}
    return wall["finetune"] + wall["label"] + max(wall["distill"], wall["control"])


def main() -> None:
    """Measure, and write ``pipeline.json``."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--fresh", type=int, default=1, help="first runs, each on a copy of its own")
    ask.add_argument("--reruns", type=int, default=3, help="unchanged runs after the last of them")
    ask.add_argument("--out", type=Path, default=RESULTS)
    asked = ask.parse_args()
    ratios, trainings, reruns = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(asked.fresh):
            folder = Path(scratch) / f"copy-{number}" / "reflux"
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
            wall = reflux_run(folder)
            trainings.append(training_seconds(folder / "artifacts"))
            ratios.append(wall / trainings[-1])
        reruns = [reflux_run(folder) for _ in range(asked.reruns)]
    figures = [
        of_rounds("orchestration_over_training", ratios, "x"),
        of_rounds("training_s", trainings, "s"),
        of_rounds("unchanged_rerun_s", reruns, "s"),
    ]
    path = write("pipeline", figures, asked.out)
    for figure in figures:
        print(f"{figure.name:32} {figure.value:8.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}")
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
