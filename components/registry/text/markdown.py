"""What a person reads in the registry: Markdown of a version."""

from collections.abc import Iterable, Mapping
from typing import Any

from components.registry.policy.decision import Decision
from components.registry.policy.gates import figures, sides
from components.registry.text import urls

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
    effect: str = "",
) -> str:
    """A version's description: what it is, how good, the verdict with its reasons, where it comes from."""
    lines = [_summary(metrics, names, dataset), "", *_verdict(decision, effect), "", "| | |", "| --- | --- |"]
    pages = _pages(tags)
    for key, label in LINEAGE.items():
        shown = f"`{tags[key]}`" if key in tags else _MISSING
        lines.append(f"| {label} | {f'[{shown}]({pages[key]})' if key in pages else shown} |")
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
    """A registered model's description: what is in production, the way back, and what a version must pass.

    Args:
        name: the registered model.
        project: the project, whose ledger has every attempt.
        champion: the version in production; None for none yet.
        previous: the one before it; None for none.
        since: when the champion came there, by whom and why.
        tags: the champion's, which say where it comes from.
        policy: what it was judged by, as ``decision.json`` has it.
    """
    if champion is None:
        lines = ["**Nothing is in production yet.**"]
    else:
        card = urls.card(tags)
        shown = f" [Its model card]({card})." if card else ""
        lines = [f"**In production: {_link(name, champion)}**, the alias `champion`, since {since}.{shown}"]
        lines += ["", _origin(champion, tags)]
    if previous is not None:
        lines += ["", f"Before it: {_link(name, previous)}; `reflux rollback --reason …` puts it back."]
    lines += ["", f"Every attempt, the refused ones too, is a run of the experiment `{project}/promotions`."]
    if policy:
        lines += ["", "A version is promoted when it has:", "", *(f"- {rule}" for rule in _rules(policy))]
    return "\n".join(lines)


def since(at: str, by: str, reason: str) -> str:
    """When, by whom and why something was done."""
    return f"{at} by {by}" + (f" ({reason})" if reason else "")


def _link(name: str, version: int) -> str:
    return f"[version {version}]({urls.version(name, version)})"


def _origin(champion: int, tags: Mapping[str, str]) -> str:
    """Where a champion comes from, with the command that prints the whole of it."""
    pages, known = _pages(tags), {"data": tags.get("dvc.data_md5"), "commit": tags.get("git.sha")}
    parts = [f"{name} `{value[:12]}`" for name, value in known.items() if value]
    words = {"run_id": "its run", "teacher.model_id": "its teacher"}
    parts += [f"[{word}]({pages[key]})" for key, word in words.items() if key in pages]
    return f"Where it comes from: {', '.join([*parts, f'`reflux lineage {champion}`'])}."


def _rules(policy: Mapping[str, Any]) -> list[str]:
    """A policy, a rule a line."""
    words = {"min": "of at least", "max": "of at most"}
    found = [f"`{figure}` {words[side]} {limit:g}" for figure, side, limit in sides(policy["gates"])]
    for column, bounds in policy["slices"].items():
        each = f"on each `{column}` of {policy['min_count']} test images or more"
        found += [f"`{figure}` {words[side]} {limit:g} {each}" for figure, side, limit in sides(bounds)]
    return [
        *found,
        f"an accuracy of no more than {policy['margin']:g} below the champion's, both measured at that moment",
        f"a higher accuracy than the champion (p < {policy['alpha']:g}), "
        f"or a file {policy['smaller']:g} times smaller, or {policy['faster']:g} times faster",
    ]


def why(effect: str, reasons: Iterable[Mapping[str, Any]]) -> str:
    """Why a decision came out as it did: what was not passed, or what it did."""
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
    """What a person reads on a ledger's run."""
    head = f"**Version {version} {outcome}** by {by}{f': {reason}' if reason else ''}. {effect}"
    lines = [f"- {_MARKS[reason['passed']]}: {reason['sentence']}" for reason in reasons]
    return "\n".join([head, "", *lines, *(f"- note: {sentence}" for sentence in notes)])


def recorded_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """A decision's numbers: the gated figures, and the comparison with the champion."""
    found = figures({"shipped": {"onnx": record["figures"]}})
    against = record["champion"] or {}
    return found | {f"champion/{key}": float(against[key]) for key in _COMPARED if against.get(key) is not None}


def _pages(tags: Mapping[str, str]) -> dict[str, str]:
    """The page in MLflow's UI of each tag that has one."""
    if "experiment_id" not in tags:
        return {}
    found = {"run_id": urls.run, "model_id": urls.logged_model, "teacher.model_id": urls.logged_model}
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


def _verdict(decision: Decision | None, effect: str) -> list[str]:
    if decision is None:
        return ["**Not decided yet.**"]
    return [
        f"**{decision.status}.** {effect}".strip(),
        "",
        *(f"- {_MARKS[r.passed]}: {r.sentence}" for r in decision.reasons),
        *(f"- note: {sentence}" for sentence in decision.notes),
    ]
