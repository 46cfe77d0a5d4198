"""Descriptions of models, versions and attempts for MLflow, in Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from reflux.components.core.contract import FILES, ships, trained
from reflux.components.registry.policy.decision import Decision
from reflux.components.registry.policy.gates import gated_figures, in_percent, sides
from reflux.components.registry.text import urls

_MISSING = "unknown to this copy of the project"
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
    "trained": "Trained",
    "test_fingerprint": "Test split",
    "artifact_sha256": "File (sha256)",
}


def version(
    metrics: Mapping[str, Any],
    names: Mapping[str, str],
    dataset: str,
    tags: Mapping[str, str],
    decision: Decision | None,
    effect: str = "",
) -> str:
    """A version's description: its networks and figures, the decision with its reasons, and its lineage."""
    lines = [_summary(metrics, names, dataset), "", *_verdict(decision, effect), "", "| | |", "| --- | --- |"]
    pages = _pages(tags)
    for key, label in LINEAGE.items():
        value = f"`{tags[key]}`" if key in tags else _MISSING
        if key == "test_fingerprint" and decision and decision.uses is not None:
            value += f", decisions before this one: {decision.uses:,}"
        lines.append(f"| {label} | {f'[{value}]({pages[key]})' if key in pages else value} |")
    if card := urls.card(tags):
        lines.append(f"| Model card | [model-card.html]({card}) |")
    return "\n".join(lines)


def front(
    name: str,
    project: str,
    champion: int | None,
    previous: int | None,
    since: str,
    tags: Mapping[str, str],
    policy: Mapping[str, Any] | None,
) -> str:
    """A registered model's description: the version in production, how to roll back, and the policy.

    ``tags`` are the champion's, ``since`` is when, by whom and why it was promoted.
    """
    if champion is None:
        lines = ["**Nothing is in production yet.**"]
    else:
        card = urls.card(tags)
        link = f" [Its model card]({card})." if card else ""
        lines = [f"**In production: {_link(name, champion)}**, the alias `champion`, since {since}.{link}"]
        lines += ["", _origin(champion, tags)]
    if previous is not None:
        lines += ["", f"Before it: {_link(name, previous)}; `reflux rollback --reason …` puts it back."]
    lines += ["", f"Every attempt, including refused ones, is a run of the experiment `{project}/promotions`."]
    if policy:
        lines += ["", "A version is promoted when it has:", "", *(f"- {rule}" for rule in _rules(policy))]
    return "\n".join(lines)


def since(at: str, by: str, reason: str) -> str:
    """Say when, by whom and why something was done."""
    return f"{at} by {by}" + (f" ({reason})" if reason else "")


def _link(name: str, version: int) -> str:
    return f"[version {version}]({urls.version(name, version)})"


def _origin(champion: int, tags: Mapping[str, str]) -> str:
    """A sentence on a champion's origin, with the command that prints its whole lineage."""
    pages, known = _pages(tags), {"data": tags.get("dvc.data_md5"), "commit": tags.get("git.sha")}
    parts = [f"{name} `{value[:12]}`" for name, value in known.items() if value]
    words = {"run_id": "its run", "teacher.model_id": "its teacher"}
    parts += [f"[{word}]({pages[key]})" for key, word in words.items() if key in pages]
    return f"Where it comes from: {', '.join([*parts, f'`reflux lineage {champion}`'])}."


def _rules(policy: Mapping[str, Any]) -> list[str]:
    """A policy as lines of text, one per rule."""
    words = {"min": "of at least", "max": "of at most"}
    rules = [
        f"`{figure}`{_where(policy['gates'][figure])} {words[side]} {limit:g}{_surely(policy['gates'][figure])}"
        for figure, side, limit in sides(policy["gates"])
    ]
    for column, bounds in policy["slices"].items():
        each = f"on each `{column}` of {policy['min_count']} test images or more"
        rules += [
            f"`{figure}` {words[side]} {limit:g}{_surely(bounds[figure])} {each}"
            for figure, side, limit in sides(bounds)
        ]
    if policy.get("worse_than_control") == "refuse":  # older records lack it
        rules.append(f"an accuracy that is not significantly below its control's (p < {policy['alpha']:g})")
    return [
        *rules,
        f"an accuracy of no more than {policy['margin']:g} below the champion's, both measured at that moment",
        f"a higher accuracy than the champion (p < {policy['alpha']:g}), "
        f"or a file {policy['smaller']:g} times smaller, or {policy['faster']:g} times faster",
    ]


def _where(bound: Mapping[str, Any]) -> str:
    return f" on {bound['device']}" if bound.get("device") else ""


def _surely(bound: Mapping[str, Any]) -> str:
    return f" with {in_percent(bound['confidence'])} confidence" if bound.get("confidence") else ""


def why(effect: str, reasons: Iterable[Mapping[str, Any]]) -> str:
    """The cause of a decision's outcome: the checks that were not passed, else its effect."""
    return " ".join([r["sentence"] for r in reasons if not r["passed"]] or [effect])


def attempt(
    version: int,
    outcome: str,
    by: str,
    reason: str,
    effect: str,
    reasons: Iterable[Mapping[str, Any]],
    notes: Iterable[str],
) -> str:
    """The note on a run of the ledger."""
    head = f"**Version {version} {outcome}** by {by}{f': {reason}' if reason else ''}. {effect}"
    lines = [f"- {_MARKS[reason['passed']]}: {reason['sentence']}" for reason in reasons]
    return "\n".join([head, "", *lines, *(f"- note: {sentence}" for sentence in notes)])


def recorded_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a recorded decision, and those of its comparison with the champion."""
    figures = gated_figures({"shipped": {"onnx": record["figures"]}, "gain": record.get("gain", {})})
    champion = record["champion"] or {}
    return figures | {f"champion/{key}": float(champion[key]) for key in _COMPARED if champion.get(key) is not None}


def _pages(tags: Mapping[str, str]) -> dict[str, str]:
    """The pages in MLflow's UI of those tags that have one."""
    if "experiment_id" not in tags:
        return {}
    makers = {"run_id": urls.run, "model_id": urls.logged_model, "teacher.model_id": urls.logged_model}
    return {key: page(tags["experiment_id"], tags[key]) for key, page in makers.items() if key in tags}


def _summary(metrics: Mapping[str, Any], names: Mapping[str, str], dataset: str) -> str:
    figures = gated_figures(metrics)
    origin = {"distilled": f"distilled from {names['teacher']} on", "labels": "trained on the labels alone of"}
    text = f"**{names['student']}** {origin[trained(metrics)]} {dataset}"
    if "accuracy" in figures:
        text += f": {100 * figures['accuracy']:.2f} % accuracy on {metrics['test']['n']:,} test images"
    others = {"teacher": "teacher", "control": "same student without teacher"}
    if trained(metrics) == "labels":
        others = {"teacher": "teacher", "distilled": "same student distilled from it"}
    compared = [
        f"{label} {100 * metrics[key]['accuracy']:.2f} %"
        for key, label in others.items()
        if "accuracy" in metrics.get(key, {})
    ]
    text += f" ({', '.join(compared)})" if compared else ""
    balance = [f"macro F1 {figures['macro_f1']:.4f}"] if "macro_f1" in figures else []
    if "worst_class_recall" in figures:
        balance.append(f"recall of the worst class {100 * figures['worst_class_recall']:.2f} %")
    file = FILES[ships(metrics)].format.label
    units = (("size_kb", 1, f"KB as {file}"), ("params", 0, "parameters"), ("latency_ms_p95", 3, "ms at p95"))
    sizes = [f"{figures[key]:,.{digits}f} {unit}" for key, digits, unit in units if key in figures]
    return "; ".join([text, *(", ".join(part) for part in (balance, sizes) if part)]) + "."


def _verdict(decision: Decision | None, effect: str) -> list[str]:
    if decision is None:
        return ["**Not decided yet.**"]
    return [
        f"**{decision.status}.** {effect}".strip(),
        "",
        *(f"- {_MARKS[r.passed]}: {r.sentence}" for r in decision.reasons),
        *(f"- note: {sentence}" for sentence in decision.notes),
    ]
