"""What orchestration costs: the default pipeline on a fresh copy of this checkout, and again when nothing changed.

    .venv/bin/python -m benchmarks.pipeline                 # some minutes

``orchestration_over_training`` is the wall time of the first ``reflux run``, from the command to its prompt, divided by
the sum of the wall times of the stages that compute with a network: finetune, label, distill and control. The last two
run side by side, one core each, and both count. ``wall_over_busy`` is the stricter reading: divided by the time in
which at least one of the four was running. Ingest, validation, export, evaluation, registration and every start of a
process are in the wall time alone. ``unchanged_rerun_s`` is the wall time of ``reflux run`` when nothing changed. Low
and high are the fastest and slowest repetition.
"""

import tempfile
from pathlib import Path

from benchmarks.harness.checkout import copy_checkout, reflux_run
from benchmarks.harness.results import argument_parser, of_rounds, publish
from reflux.components.core.artifacts import read_json


def training_seconds(artifacts: Path) -> dict[str, float]:
    """Wall time of each stage that trains or labels."""
    return {
        name: read_json(artifacts / name / "run.json")["wall_s"] for name in ("finetune", "label", "distill", "control")
    }


def main() -> None:
    """Measure, and write ``pipeline.json``."""
    parser = argument_parser(__doc__)
    parser.add_argument("--fresh", type=int, default=1, help="first runs, each in a copy of its own")
    parser.add_argument("--reruns", type=int, default=3, help="unchanged runs after the last of them")
    options = parser.parse_args()
    walls, ratios, strict, stage_sums = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.fresh):
            checkout = copy_checkout(Path(scratch) / f"copy-{number}")
            walls.append(wall := reflux_run(checkout))
            stages = training_seconds(checkout / "artifacts")
            stage_sums.append(sum(stages.values()))
            ratios.append(wall / stage_sums[-1])
            strict.append(wall / (stage_sums[-1] - min(stages["distill"], stages["control"])))
        reruns = [reflux_run(checkout) for _ in range(options.reruns)]
    figures = [
        of_rounds("first_run_s", walls, "s"),
        of_rounds("orchestration_over_training", ratios, "x"),
        of_rounds("wall_over_busy", strict, "x"),
        of_rounds("training_s", stage_sums, "s"),
        of_rounds("unchanged_rerun_s", reruns, "s"),
    ]
    publish("pipeline", figures, options.out)


if __name__ == "__main__":
    main()
