"""Log a pipeline run to MLflow: figures and pictures for the boards, and a note."""

import csv
import tempfile
from pathlib import Path
from typing import Any

from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import TRAINING
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.journal import Journal
from reflux.components.core.runtime.machine import usable_cores
from reflux.components.observe.boards.declared import PICTURES
from reflux.components.observe.boards.figures import cost, summary
from reflux.components.observe.monitor.reference import FILE, measure, save
from reflux.flows.report import text
from reflux.flows.report.result import Result


def log_evaluation(journal: Journal, params: Params, metrics: dict[str, Any]) -> None:
    """Log the evaluation, the data and its checks."""
    dataset = read_json(ARTIFACTS / "ingest" / "dataset.json")
    with (ARTIFACTS / "ingest" / "quarantine.csv").open(encoding="utf-8-sig", newline="") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    checks = read_json(ARTIFACTS / "validate" / "result.json")
    gates = params.registry.gates.model_dump(exclude_none=True)
    journal.metrics(summary(metrics, gates, dataset, kinds, checks), step=None)
    for key, name in PICTURES.items():
        if (ARTIFACTS / name).is_file():
            journal.image(key, ARTIFACTS / name)


def log_result(journal: Journal, result: Result) -> None:
    """Log the decision, the run's cost, and the whole result as the run's note."""
    spent = sum(read_json(ARTIFACTS / name / "run.json")["wall_s"] for name in TRAINING if name in result.executed)
    figures = cost(result.seconds, spent, usable_cores())
    tags = {"mlflow.note.content": text.markdown(result)}
    promotion = result.release.promotion
    if promotion is not None:
        figures["decision/promoted"] = float(promotion.champion == promotion.version)
        if promotion.decision.uses is not None:
            figures["decision/uses_of_test_split"] = float(promotion.decision.uses)
        tags |= {"decision": promotion.outcome, "version": str(promotion.version)}
    journal.metrics(figures, step=None)
    journal.tags(tags)


def log_reference(journal: Journal, seed: int) -> None:
    """Log statistics of this run's data, with which the monitor flow compares later data."""
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        path = Path(folder) / Path(FILE).name
        save(path, *measure(ARTIFACTS, seed))
        journal.artifact(path, str(Path(FILE).parent))


def in_production(result: Result) -> str:
    """The model in production, for the experiment's note."""
    promotion = result.release.promotion
    if promotion is None or promotion.champion is None:
        return f"In production: nothing yet, because no version of {result.model_name} has passed its gates."
    page = f"#/models/{result.model_name}/versions/{promotion.champion}"
    return (
        f"In production: [{result.model_name} version {promotion.champion}]({page}). The newest version, "
        f"{promotion.version}, is {promotion.outcome}."
    )
