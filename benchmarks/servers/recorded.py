"""A tiny retrain, recorded once, and told to servers again as if it were another one."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from benchmarks.results import ROOT
from benchmarks.seeds import LEFT_BEHIND
from components.core.runtime import tracking
from flows.commands.run import EXIT_NOT_REGISTERED
from flows.report.display import ALL

NOBODY = "http://127.0.0.1:9"  # where no MLflow answers, so that all that it should hear stays in the outbox
TINY = (
    *("finetune.epochs=1", "finetune.image_size=28", "pretrain.model=resnet20", "pretrain.weights=random"),
    *("student.steps=1500", "student.batch_size=8", "label.views=1", "evaluate.bootstrap=100"),
    *("evaluate.latency_runs=20", "registry.gates={accuracy: {min: 0.0}}"),
)
_LINES_A_STAGE = 5  # that a stage's progress writes to Prefect's log


def record(folder: Path) -> Path:
    """Run the pipeline once with its own data and a tiny budget, with no MLflow; returns the checkout it ran in."""
    project = folder / "recorded"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
    command = [sys.executable, "-m", "flows.cli", "run", *(word for key in TINY for word in ("-S", key))]
    done = subprocess.run(command, cwd=project, env=settings | {"MLFLOW_TRACKING_URI": NOBODY}, check=False)
    if done.returncode != EXIT_NOT_REGISTERED:
        raise SystemExit(f"The run to be recorded ended with {done.returncode}, not {EXIT_NOT_REGISTERED}.")
    return project


def again(outbox: Path, target: Path, experiment: str) -> Path:
    """The same journals as those of another retrain.

    Args:
        outbox: the recorded ones.
        target: an empty folder for them.
        experiment: the one that they are told to.
    """
    names = {folder.name: uuid.uuid4().hex for folder in outbox.iterdir() if (folder / "journal.jsonl").is_file()}
    for old, new in names.items():
        copy = target / new
        copy.mkdir(parents=True)
        if (outbox / old / "files").is_dir():
            (copy / "files").symlink_to((outbox / old / "files").resolve())
        lines = [json.loads(line) for line in (outbox / old / "journal.jsonl").read_text("utf-8").splitlines()]
        start = lines[0]
        start["experiment"], start["parent"] = experiment, names.get(start["parent"])
        start["tags"]["reflux.journal"] = names[start["tags"]["reflux.journal"]]
        (copy / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return target


@task
def stage(name: str) -> None:
    """What a stage tells Prefect."""
    for line in range(_LINES_A_STAGE):
        get_run_logger().info("%s: line %d", name, line)


@flow(name="recorded")
def retrain(outbox: str) -> int:
    """What a retrain tells Prefect and MLflow, computing nothing; returns how often it had to deliver once more."""
    bar = create_progress_artifact(0.0, key="recorded-progress")
    for done, name in enumerate(ALL, start=1):
        stage.with_options(name=name, task_run_name=name)(name)
        update_progress_artifact(bar, 100 * done / len(ALL))  # type: ignore[arg-type]
    repeated = 0
    while tracking.deliver(Path(outbox)):
        repeated += 1
    return repeated
