"""``python -m components.validate``: the data's checks; critical failures stop the run."""

import sys

from components.core.errors import UserError
from components.core.runtime.stage import Stage, run
from components.validate import findings, history
from components.validate.validate import Verdict, metrics, tags, validate


def main(stage: Stage) -> None:
    """Validate the ingested data, record the verdict, and stop the run on a critical failure.

    Raises:
        UserError: a critical expectation is not met.
    """
    params = stage.params.validate_
    verdict = validate(
        stage.read("ingest/manifest.parquet"),
        stage.read("ingest/quarantine.csv"),
        stage.read("ingest/dataset.json"),
        stage.out("."),
        history.HISTORY,
        near_duplicate_bits=params.near_duplicate_bits,
        max_class_shift=params.max_class_shift,
        teaching=stage.params.finetune.rounds > 1,
    )
    stage.journal.metrics(metrics(verdict))
    stage.journal.tags(tags(verdict))
    stage.journal.artifact(stage.out("result.json"))
    stage.journal.artifact(stage.out("docs"))
    sys.stdout.write(summary(verdict))
    if findings.failed(verdict.findings, "critical"):
        raise UserError(findings.refusal(verdict.findings, str(stage.out("docs/index.html"))))


def summary(verdict: Verdict) -> str:
    """The number of expectations met, and each warning with its first rows."""
    judged = [finding for finding in verdict.findings if finding.success is not None]
    met = sum(finding.success is True for finding in judged)
    warnings = findings.failed(verdict.findings, "warning")
    lines = [f"{met} of {len(judged)} expectations met", *(f"Warning: {w.sentence(rows=3)}" for w in warnings)]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    run("validate", main)
