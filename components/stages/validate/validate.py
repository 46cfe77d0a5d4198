"""Validation: from the manifest to a verdict on the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reflux.components.core.artifacts import atomic, read_json, write_json
from reflux.components.core.errors import UserError
from reflux.components.stages.validate import findings, history, suite, tables
from reflux.components.stages.validate.expected import TABLES, Data
from reflux.components.stages.validate.findings import Finding

_JUDGED = ("path", "split", "label", "sha256", "phash", "pixel_std", "group")
PASSED = "The data met every critical expectation.\n"


@dataclass(frozen=True)
class Verdict:
    """The outcome of validation.

    Attributes:
        findings: the outcome of every expectation.
        fingerprint: the data version that was validated.
        previous: the data version that its class balance was compared with, or None.
        class_shift: the largest change of a class's share since then, 0..1; None without one.
    """

    findings: list[Finding]
    fingerprint: str
    previous: str | None
    class_shift: float | None


def validate(
    manifest: Path,
    quarantine: Path,
    dataset: Path,
    out: Path,
    versions: Path,
    near_duplicate_bits: int,
    max_class_shift: float,
    teaching: bool = False,
) -> Verdict:
    """Validate a dataset, and write ``result.json``, Data Docs and, if nothing critical failed, ``passed``.

    ``unlabeled.json`` says which unlabeled images the teacher learns from, so that others need not outdate it.

    Args:
        manifest: ingest's ``manifest.parquet``.
        quarantine: ingest's ``quarantine.csv``.
        dataset: ingest's ``dataset.json``.
        out: the folder that receives the artifacts.
        versions: where the class shares of earlier data versions are kept.
        near_duplicate_bits: perceptual hashes that differ in at most so many bits look alike.
        max_class_shift: how far a class's share of the labeled images may move between data versions, 0..1.
        teaching: the unlabeled images teach the teacher, and not the student alone.

    Raises:
        UserError: two expectations have one name.
    """
    (out / "passed").unlink(missing_ok=True)
    facts = read_json(dataset)
    classes, fingerprint = facts["classes"], facts["fingerprint"]
    before = history.previous(versions, facts["name"], fingerprint)
    everything = pd.read_parquet(manifest, columns=list(_JUDGED))
    labeled = tables.labeled(everything, classes)
    left_out, previous_shares = _read_quarantine(quarantine), before["class_shares"] if before else None
    limits = (near_duplicate_bits, max_class_shift)
    data = Data(manifest, everything, labeled, left_out, classes, previous_shares, *limits)
    checked = {name: expected(data) for name, expected in TABLES.items()}
    shares = tables.shares_of_classes(labeled, classes)
    # The hashes are most of the memory, and no longer needed.
    del everything, data
    _refuse_twins(checked)
    outcomes = suite.run(checked, out / "docs", fingerprint)
    shifts = checked["class-shares"].rows
    largest = float(shifts["shift"].max()) if shifts is not None else None
    verdict = Verdict(outcomes, fingerprint, before["fingerprint"] if before else None, largest)
    write_json(out / "result.json", findings.result(outcomes, fingerprint, verdict.previous, largest))
    if not findings.failed(outcomes, "critical"):
        with atomic(out / "passed") as temporary:
            temporary.write_text(PASSED, encoding="utf-8")
        write_json(out / "unlabeled.json", {"fingerprint": facts["fingerprints"]["unlabeled"] if teaching else None})
        history.remember(versions, facts["name"], fingerprint, shares)
    return verdict


def _refuse_twins(checked: Mapping[str, suite.Expectations]) -> None:
    names = [check.name for table in checked.values() for check in table.checks]
    if twins := [name for name in names if names.count(name) > 1]:
        raise UserError(f"Two expectations are named {twins[0]}: rename that of your extension.")


def _read_quarantine(path: Path) -> pd.DataFrame:
    """Read ingest's list of the images that it left out, as text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def metrics(verdict: Verdict) -> dict[str, float]:
    """The figures for the run's journal."""
    figures = {
        "validate/critical_failures": float(len(findings.failed(verdict.findings, "critical"))),
        "validate/warnings": float(len(findings.failed(verdict.findings, "warning"))),
    }
    if verdict.class_shift is not None:
        figures["validate/class_shift"] = verdict.class_shift
    return figures | {
        f"validate/unexpected/{f.name}": float(f.unexpected) for f in verdict.findings if f.success is not None
    }


def tags(verdict: Verdict) -> dict[str, str]:
    """The tags for the run's journal."""
    critical = findings.failed(verdict.findings, "critical")
    warnings = findings.failed(verdict.findings, "warning")
    named: dict[str, Any] = {
        "dataset.fingerprint": verdict.fingerprint,
        "validate.status": "failed" if critical else "passed with warnings" if warnings else "passed",
        "validate.critical": ", ".join(f.name for f in critical),
        "validate.warnings": ", ".join(f.name for f in warnings),
    }
    return {name: value for name, value in named.items() if value}
