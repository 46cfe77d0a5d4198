"""``python -m reflux.components.stages.validate``: the data's checks; critical failures stop the run."""

import sys

from reflux.components.core.artifacts import read_json
from reflux.components.core.data.shards import open_other, open_shard
from reflux.components.core.errors import UserError
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.stages.validate import domains, findings, history
from reflux.components.stages.validate.validate import Verdict, metrics, tags, validate


def main(stage: Stage) -> None:
    """Validate the ingested data, record the verdict, and stop the run on a critical failure.

    Raises:
        UserError: a critical expectation is not met.
    """
    params, finetune = stage.params.validate_, stage.params.finetune
    verdict = validate(
        stage.read("ingest/manifest.parquet"),
        stage.read("ingest/quarantine.csv"),
        stage.read("ingest/dataset.json"),
        stage.out("."),
        history.HISTORY,
        near_duplicate_bits=params.near_duplicate_bits,
        max_class_shift=params.max_class_shift,
        teaching=finetune.rounds > 1 or finetune.adaptation != "none",
    )
    stage.journal.metrics(metrics(verdict))
    stage.journal.tags(tags(verdict))
    stage.journal.artifact(stage.out("result.json"))
    stage.journal.artifact(stage.out("docs"))
    sys.stdout.write(summary(verdict))
    _compare_domains(stage)
    if findings.failed(verdict.findings, "critical"):
        raise UserError(findings.refusal(verdict.findings, str(stage.out("docs/index.html"))))


def _compare_domains(stage: Stage) -> None:
    """Print and record how different the source domain looks, if there is one."""
    source = open_other(stage.read("ingest/source-domain"), "train")
    if source is None:
        return
    target = [open_shard(stage.read(f"ingest/shards/{split}")) for split in ("train", "unlabeled")]
    classes = read_json(stage.read("ingest/dataset.json"))["classes"]
    tests = domains.compare_domains(source, target, classes)
    stage.journal.metrics({f"validate/source_domain/{test.name.replace(' ', '_')}": test.distance for test in tests})
    sys.stdout.write(f"Note: {domains.sentence(tests)}.\n")


def summary(verdict: Verdict) -> str:
    """The number of expectations met, and each warning with its first rows."""
    judged = [finding for finding in verdict.findings if finding.success is not None]
    met = sum(finding.success is True for finding in judged)
    warnings = findings.failed(verdict.findings, "warning")
    lines = [f"{met} of {len(judged)} expectations met", *(f"Warning: {w.sentence(rows=3)}" for w in warnings)]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    run("validate", main)
