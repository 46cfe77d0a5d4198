"""The result of a run, as a table for the terminal and as Markdown for Prefect."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from components.registry.history import History
from components.registry.ledger.ledger import AWAITING, Entry
from components.registry.promote import PromotionResult
from flows.report.result import Result

HEADER = ("", "accuracy", "parameters", "KB", "latency p50", "latency p95")
_MISSING = "-"
_SIGNS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
_MARKS = {True: "passed", False: "missed", None: "unknown"}


def rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row a model; the student is the ONNX file that ships, measured as such."""
    shipped = metrics.get("shipped", {})
    student = {**metrics.get("student", {}), **shipped.get("onnx", {})}
    models = {"teacher": metrics.get("teacher", {}), "student": student, "control": metrics.get("control", {})}
    models |= {"student, int8": shipped["onnx_int8"]} if "onnx_int8" in shipped else {}
    for name, figures in models.items():
        yield (
            name,
            _shown(figures, "accuracy", lambda v: f"{100 * v:.2f} %"),
            _shown(figures, "params", lambda v: f"{v:,.0f}"),
            _shown(figures, "size_bytes", lambda v: f"{v / 1024:,.1f}"),
            _shown(figures, "latency_ms_p50", lambda v: f"{v:.2f} ms"),
            _shown(figures, "latency_ms_p95", lambda v: f"{v:.2f} ms"),
        )


def gain(metrics: Mapping[str, Any]) -> str:
    """What distillation brought, with its interval."""
    measured = metrics["gain"]
    low, high = (100 * bound for bound in measured["ci95"])
    return (
        f"Distillation gained {100 * measured['accuracy']:+.2f} points over the control "
        f"(95% interval {low:+.2f} to {high:+.2f}, McNemar p = {measured['p_value']:.2g}, "
        f"{metrics['test']['n']:,} test images)."
    )


def table(metrics: Mapping[str, Any]) -> Table:
    """The result table for a terminal."""
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    for column in HEADER:
        drawn.add_column(column, justify="left" if not column else "right")
    for row in rows(metrics):
        drawn.add_row(*row, style="bold" if row[0] == "student" else None)
    return drawn


def standing(promotion: PromotionResult, model_name: str) -> str:
    """The version, its alias and its verdict, in one sentence."""
    version = f"{model_name} version {promotion.version}"
    if promotion.champion == promotion.version:
        return f"{version} is {'the new' if promotion.moved else 'the'} @champion."
    stays = f"the champion stays version {promotion.champion}" if promotion.champion else "there is no champion"
    if promotion.outcome == AWAITING:
        version += f" awaits your word, `reflux approve {promotion.version} --reason …`: it"
    return f"{version} is {promotion.decision.status}, as @challenger; {stays}."


def past(found: History) -> RenderableType:
    """What is in production, what was moved by hand, and every attempt, for a terminal."""
    lines = [Text(_production(found), style="bold")]
    lines += [Text(f"Warning: {sentence}", style="yellow") for sentence in found.by_hand]
    parts: list[RenderableType] = [*lines, Text()]
    for entry in found.entries:
        parts += [Text(_headline(entry), style="bold"), Padding(Text(_background(entry)), (0, 0, 1, 2))]
    if found.undecided:
        parts.append(Text(f"Registered, but not in the ledger: version {', '.join(map(str, found.undecided))}."))
    return Group(*parts)


def _production(found: History) -> str:
    if found.champion is None:
        return f"{found.model}: no version is in production."
    since = f" since {_time(found.since)}, by {found.since.by}" if found.since else ""
    before = f"; version {found.previous} was before it" if found.previous else ""
    return f"{found.model}: version {found.champion} is in production{since}{before}."


def _headline(entry: Entry) -> str:
    if entry.action == "rollback":
        what = "back to version" if entry.outcome == "rolled back" else "rollback to version"
        done = f"{what} {entry.version}" + ("" if entry.outcome == "rolled back" else f" {entry.outcome or 'open'}")
    else:
        done = f"version {entry.version} {entry.outcome or 'open'}"
    over = f", champion {entry.champion}" if entry.champion else ""
    return f"{_time(entry)}  {done}, by {entry.by}{over}{f': {entry.reason}' if entry.reason else ''}"


def _background(entry: Entry) -> str:
    """Why, and where the version comes from."""
    known = entry.lineage
    origin = {
        "run": known.get("run_id"),
        "data": known.get("dvc.data_md5"),
        "commit": known.get("git.sha"),
        "flow run": known.get("prefect.flow_run_id"),
    }
    shown = [f"{name} {value[:12] if name != 'flow run' else value}" for name, value in origin.items() if value]
    accuracy = [f"accuracy {100 * entry.figures['accuracy']:.2f} %"] if "accuracy" in entry.figures else []
    return "\n".join(filter(None, [entry.why, ", ".join(accuracy + shown)]))


def _time(entry: Entry) -> str:
    return f"{entry.at.astimezone():%Y-%m-%d %H:%M}"


def reasons(promotion: PromotionResult) -> RenderableType:
    """The verdict for a terminal, with the reason for each threshold."""
    lines = Table.grid(padding=(0, 1))
    for reason in promotion.decision.reasons:
        mark, colour = _SIGNS[reason.passed]
        lines.add_row(Text(f"  {mark}", style=colour), Text(reason.sentence))
    for note in promotion.decision.notes:
        lines.add_row(Text("  !", style="yellow"), Text(note))
    return Group(f"The gates say {promotion.decision.status}:", lines)


def verdict(promotion: PromotionResult) -> str:
    """The decision as Markdown, with the reason for each threshold."""
    lines = [f"**{promotion.decision.status}**", ""]
    lines += [f"- {_MARKS[reason.passed]}: {reason.sentence}" for reason in promotion.decision.reasons]
    lines += [f"- note: {note}" for note in promotion.decision.notes]
    return "\n".join(lines)


def markdown(result: Result) -> str:
    """The whole result as a Prefect artifact."""
    lines = [f"# {result.run_name}", "", f"| {' | '.join(HEADER)} |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows(result.metrics)]
    lines += ["", gain(result.metrics), ""]
    promotion = result.release.promotion
    if promotion is not None:
        lines += [standing(promotion, result.model_name), "", verdict(promotion), ""]
    if result.release.problem:
        lines += [result.release.problem, ""]
    stages = [f"{name}: {outcome.value}" for name, outcome in result.outcomes.items()]
    lines += [f"Stages: {', '.join(stages)}. {result.seconds:.0f} s."]
    return "\n".join(lines)


def _shown(figures: Mapping[str, Any], name: str, how: Any) -> str:
    value = figures.get(name)
    return how(value) if isinstance(value, int | float) else _MISSING
