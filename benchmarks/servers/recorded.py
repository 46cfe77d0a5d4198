"""A tiny retrain that is recorded once, and delivered to servers again as if it were another one."""

import json
import os
import uuid
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from benchmarks.harness.checkout import copy_checkout, reflux_run
from reflux.components.core.contract import STEPS
from reflux.components.core.runtime import tracking
from reflux.flows.commands.run import EXIT_NOT_REGISTERED

NO_MLFLOW = "http://127.0.0.1:9"  # nothing answers there, so that every journal stays in the outbox
TINY = (
    *("finetune.epochs=1", "finetune.image_size=28", "pretrain.model=resnet20", "pretrain.weights=random"),
    *("student.steps=1500", "student.batch_size=8", "label.views=1", "evaluate.bootstrap=100"),
    *("evaluate.latency_runs=20", "registry.gates={accuracy: {min: 0.0}}"),
)
_LINES_A_STAGE = 5  # of a stage's progress, in Prefect's log


def record(folder: Path) -> Path:
    """Run the pipeline once with its own data and a tiny budget, without MLflow; returns the checkout it ran in."""
    checkout = copy_checkout(folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
    reflux_run(checkout, TINY, environment | {"MLFLOW_TRACKING_URI": NO_MLFLOW}, EXIT_NOT_REGISTERED)
    return checkout


def copy_journals(outbox: Path, target: Path, experiment: str) -> Path:
    """Copy recorded journals as those of another retrain.

    Args:
        outbox: the recorded ones.
        target: an empty folder for the copies.
        experiment: the copies' experiment in MLflow.
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
    """Log to Prefect what a stage would."""
    for line in range(_LINES_A_STAGE):
        get_run_logger().info("%s: line %d", name, line)


@flow(name="recorded")
def retrain(outbox: str) -> int:
    """Report to Prefect and MLflow as a retrain does, computing nothing; returns the number of repeated deliveries."""
    bar = create_progress_artifact(0.0, key="recorded-progress")
    for done, name in enumerate(STEPS, start=1):
        stage.with_options(name=name, task_run_name=name)(name)
        update_progress_artifact(bar, 100 * done / len(STEPS))  # type: ignore[arg-type]
    repeated = 0
    while tracking.deliver(Path(outbox)):
        repeated += 1
    return repeated
