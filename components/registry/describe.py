"""What a person reads in the registry: Markdown of a version."""

from collections.abc import Iterable, Mapping
from typing import Any

from components.registry import links
from components.registry.decision import Decision
from components.registry.gates import figures

_MISSING = "unknown: this copy of the project can't say"
_MARKS = {True: "passed", False: "**missed**", None: "**unknown**"}
_COMPARED = ("accuracy", "difference", "low", "high", "p_value", "size_bytes", "latency_ms_p95", "faster")
LINEAGE = {
    "dvc.data_md5": "Data (DVC md5)",
    "git.sha": "Git commit",
    "params.sha256": "Params (sha256)",
    "prefect.flow_run_id": "Flow run",
    "run_id": "Pipeline run",
    "model_id": "Model",
    "teacher.model_id": "Teacher",
    "soft_labels.key": "Soft labels",
    "test_fingerprint": "Test split",
    "artifact_sha256": "ONNX file (sha256)",
}


def version(
    metrics: Mapping[str, Any],
    names: Mapping[str, str],
    dataset: str,
    tags: Mapping[str, str],
    decision: Decision | None,
    act: str = "",
) -> str:
    """A version's description: what it is, how good, the verdict with its reasons, where it comes from."""
    lines = [_summary(metrics, names, dataset), "", *_verdict(decision, act), "", "| | |", "| --- | --- |"]
    pages = _pages(tags)
    for key, label in LINEAGE.items():
        shown = f"`{tags[key]}`" if key in tags else _MISSING
        lines.append(f"| {label} | {f'[{shown}]({pages[key]})' if key in pages else shown} |")
    if card := links.card(tags):
        lines.append(f"| Model card | [model-card.html]({card}) |")
    return "\n".join(lines)


def why(did: str, reasons: Iterable[Mapping[str, Any]]) -> str:
    """Why a decision came out as it did: what was not passed, or what it did."""
    return " ".join([r["sentence"] for r in reasons if not r["passed"]] or [did])


def attempt(
    version: int,
    outcome: str,
    by: str,
    reason: str,
    did: str,
    reasons: Iterable[Mapping[str, Any]],
    notes: Iterable[str],
) -> str:
    """What a person reads on a ledger's run."""
    head = f"**Version {version} {outcome}** by {by}{f': {reason}' if reason else ''}. {did}"
    lines = [f"- {_MARKS[reason['passed']]}: {reason['sentence']}" for reason in reasons]
    return "\n".join([head, "", *lines, *(f"- note: {sentence}" for sentence in notes)])


def measured(record: Mapping[str, Any]) -> dict[str, float]:
    """A decision's numbers: the gated figures, and the comparison with the champion."""
    found = figures({"shipped": {"onnx": record["figures"]}})
    against = record["champion"] or {}
    return found | {f"champion/{key}": float(against[key]) for key in _COMPARED if against.get(key) is not None}


def _pages(tags: Mapping[str, str]) -> dict[str, str]:
    """The page in MLflow's UI of each tag that has one."""
    if "experiment_id" not in tags:
        return {}
    found = {"run_id": links.run, "model_id": links.logged_model, "teacher.model_id": links.logged_model}
    return {key: page(tags["experiment_id"], tags[key]) for key, page in found.items() if key in tags}


def _summary(metrics: Mapping[str, Any], names: Mapping[str, str], dataset: str) -> str:
    found = figures(metrics)
    text = f"**{names['student']}** distilled from {names['teacher']} on {dataset}"
    if "accuracy" in found:
        text += f": {100 * found['accuracy']:.2f} % accuracy on {metrics['test']['n']:,} test images"
    others = {"teacher": "teacher", "control": "same student without teacher"}
    beside = [
        f"{label} {100 * metrics[key]['accuracy']:.2f} %"
        for key, label in others.items()
        if "accuracy" in metrics.get(key, {})
    ]
    text += f" ({', '.join(beside)})" if beside else ""
    sizes = [
        f"{found[key]:,.{digits}f} {unit}"
        for key, digits, unit in (
            ("size_kb", 1, "KB as ONNX"),
            ("params", 0, "parameters"),
            ("latency_ms_p95", 3, "ms at p95"),
        )
        if key in found
    ]
    return "; ".join([text, ", ".join(sizes)]) + "." if sizes else text + "."


def _verdict(decision: Decision | None, act: str) -> list[str]:
    if decision is None:
        return ["**Not decided yet.**"]
    return [
        f"**{decision.status}.** {act}".strip(),
        "",
        *(f"- {_MARKS[r.passed]}: {r.sentence}" for r in decision.reasons),
        *(f"- note: {sentence}" for sentence in decision.notes),
    ]
