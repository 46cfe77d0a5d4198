"""Results, decisions and the history of a model, for the terminal and as Markdown."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reflux.components.core.contract import UNTRAINED_CONTROL, alternatives, not_distilled, shipped
from reflux.components.registry.history import History
from reflux.components.registry.ledger.ledger import AWAITING, Entry
from reflux.components.registry.promote import PromotionResult
from reflux.flows.report.result import Result

HEADER = ("", "accuracy", "macro F1", "worst class", "parameters", "KB", "ms p95")
_MISSING = "-"
_SIGNS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
_MARKS = {True: "passed", False: "missed", None: "unknown"}


def rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row for each model; the student's is measured on the file that ships, the worst class by its recall."""
    files = metrics.get("shipped", {})
    student = {**metrics.get("student", {}), **shipped(metrics)}
    models = {"teacher": metrics.get("teacher", {}), "student": student, "control": metrics.get("control", {})}
    models |= {"distilled student": metrics["distilled"]} if "distilled" in metrics else {}
    models |= {name: files[kind] for name, kind in alternatives(metrics).items()}
    for name, figures in models.items():
        yield (
            name,
            _cell(figures, "accuracy", lambda v: f"{100 * v:.2f} %"),
            _cell(figures, "macro_f1", lambda v: f"{v:.4f}"),
            _cell(figures, "worst_class_recall", lambda v: f"{100 * v:.2f} %"),
            _cell(figures, "params", lambda v: f"{v:,.0f}"),
            _cell(figures, "size_bytes", lambda v: f"{v / 1024:,.1f}"),
            _cell(figures, "latency_ms_p95", lambda v: f"{v:.2f}"),
        )


def gain(metrics: Mapping[str, Any]) -> str:
    """The gain of distillation, with its interval and what that leaves out, or why there is none to tell."""
    if metrics.get("control_untrained"):
        return UNTRAINED_CONTROL
    if instead := not_distilled(metrics):
        return instead
    gain = metrics["gain"]
    low, high = (100 * bound for bound in gain["ci95"])
    return (
        f"Distillation gained {100 * gain['accuracy']:+.2f} points over the control "
        f"(95% interval {low:+.2f} to {high:+.2f}, McNemar p = {gain['p_value']:.2g}, "
        f"{metrics['test']['n']:,} test images). Both are of this one training run: how much another seed would gain "
        "is not in them."
    )


def confusions(metrics: Mapping[str, Any]) -> str:
    """The student's likeliest confusions by the names of classes; empty where it made no mistake."""
    pairs = [
        f"{each['true']} is taken for {each['predicted']} in {each['n']:,} of {each['of']:,}"
        for each in metrics.get("confusions", [])
    ]
    return f"Likeliest confusions: {', '.join(pairs)} test images." if pairs else ""


def rounds(metrics: Mapping[str, Any]) -> str:
    """What self-training gained the teacher; empty if it was trained once."""
    every = metrics.get("rounds", [])
    if not every:
        return ""
    kept = next(number for number, each in enumerate(every, 1) if each["kept"])
    accuracies = ", then ".join(f"{100 * each['val_accuracy']:.2f} %" for each in every)
    gained = 100 * (every[kept - 1]["val_accuracy"] - every[0]["val_accuracy"])
    what = f"which gained {gained:+.2f} points over the labels alone" if kept > 1 else "the labels alone"
    return (
        f"In its rounds of self-training the teacher got {accuracies} of the validation images right: round {kept} was "
        f"kept, {what}."
    )


def source_domain(metrics: Mapping[str, Any]) -> str:
    """What teacher and student reach on the source domain; empty if it has no test images, or there is none."""
    domain = metrics.get("source_domain", {})
    if not domain.get("accuracy"):
        return ""
    teacher, student = (f"{100 * domain['accuracy'][model]:.2f} %" for model in ("teacher", "student"))
    return (
        f"On the {domain['n']:,} test images of the source domain {domain['name']} the teacher reaches {teacher} and "
        f"the student {student}."
    )


def table(metrics: Mapping[str, Any]) -> Table:
    """The result table for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in HEADER:
        table.add_column(column, justify="left" if not column else "right")
    for row in rows(metrics):
        table.add_row(*row, style="bold" if row[0] == "student" else None)
    return table


def standing(promotion: PromotionResult, model_name: str) -> str:
    """The version, its alias and its verdict, in one sentence."""
    version = f"{model_name} version {promotion.version}"
    if promotion.champion == promotion.version:
        return f"{version} is {'the new' if promotion.moved else 'the'} @champion."
    stays = f"version {promotion.champion} stays the champion" if promotion.champion else "there is no champion"
    if promotion.outcome == AWAITING:
        version += f" awaits your approval (`reflux approve {promotion.version} --reason …`): it"
    return f"{version} is {promotion.decision.status}, as @challenger; {stays}."


def history(past: History) -> RenderableType:
    """What is in production, what was moved by hand, and every attempt, for a terminal."""
    lines = [Text(_production(past), style="bold")]
    lines += [Text(f"Warning: {sentence}", style="yellow") for sentence in past.by_hand]
    parts: list[RenderableType] = [*lines, Text()]
    for entry in past.entries:
        parts += [Text(_headline(entry), style="bold"), Padding(Text(_background(entry)), (0, 0, 1, 2))]
    if past.undecided:
        parts.append(Text(f"Registered, but not in the ledger: version {', '.join(map(str, past.undecided))}."))
    return Group(*parts)


def _production(past: History) -> str:
    if past.champion is None:
        return f"{past.model}: no version is in production."
    since = f" since {_time(past.since)}, by {past.since.by}" if past.since else ""
    previous = f"; the previous one was version {past.previous}" if past.previous else ""
    return f"{past.model}: version {past.champion} is in production{since}{previous}."


def _headline(entry: Entry) -> str:
    outcome = entry.outcome or "open"
    event = f"version {entry.version} {outcome}"
    if entry.action == "rollback":
        done = outcome == "rolled back"
        event = f"back to version {entry.version}" if done else f"rollback to version {entry.version} {outcome}"
    champion = f", champion {entry.champion}" if entry.champion else ""
    return f"{_time(entry)}  {event}, by {entry.by}{champion}{f': {entry.reason}' if entry.reason else ''}"


def _background(entry: Entry) -> str:
    """The reason, and the version's origin."""
    known = entry.lineage
    origin = {
        "run": (known.get("run_id") or "")[:12],
        "data": (known.get("dvc.data_md5") or "")[:12],
        "commit": (known.get("git.sha") or "")[:12],
        "flow run": known.get("prefect.flow_run_id"),
    }
    parts = [f"accuracy {100 * entry.figures['accuracy']:.2f} %"] if "accuracy" in entry.figures else []
    parts += [f"{name} {value}" for name, value in origin.items() if value]
    return "\n".join(filter(None, [entry.why, ", ".join(parts)]))


def _time(entry: Entry) -> str:
    return f"{entry.at.astimezone():%Y-%m-%d %H:%M}"


def reasons(promotion: PromotionResult) -> RenderableType:
    """The verdict for a terminal, with the reason for each threshold."""
    grid = Table.grid(padding=(0, 1))
    for reason in promotion.decision.reasons:
        mark, color = _SIGNS[reason.passed]
        grid.add_row(Text(f"  {mark}", style=color), Text(reason.sentence))
    for note in promotion.decision.notes:
        grid.add_row(Text("  !", style="yellow"), Text(note))
    return Group(f"The gates say {promotion.decision.status}:", grid)


def verdict(promotion: PromotionResult) -> str:
    """The decision as Markdown, with the reason for each threshold."""
    lines = [f"**{promotion.decision.status}**", ""]
    lines += [f"- {_MARKS[reason.passed]}: {reason.sentence}" for reason in promotion.decision.reasons]
    lines += [f"- note: {note}" for note in promotion.decision.notes]
    return "\n".join(lines)


def markdown(result: Result) -> str:
    """The whole result as Markdown, for Prefect's page and MLflow's note."""
    lines = [f"# {result.run_name}", "", f"| {' | '.join(HEADER)} |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows(result.metrics)]
    lines += ["", gain(result.metrics), ""]
    lines += [taught, ""] if (taught := rounds(result.metrics)) else []
    lines += [confused, ""] if (confused := confusions(result.metrics)) else []
    promotion = result.release.promotion
    if promotion is not None:
        lines += [standing(promotion, result.model_name), "", verdict(promotion), ""]
    if result.release.problem:
        lines += [result.release.problem, ""]
    stages = [f"{name}: {outcome.value}" for name, outcome in result.outcomes.items()]
    lines += [f"Stages: {', '.join(stages)}. {result.seconds:.0f} s."]
    return "\n".join(lines)


def _cell(figures: Mapping[str, Any], name: str, write: Callable[[float], str]) -> str:
    value = figures.get(name)
    return write(value) if isinstance(value, int | float) else _MISSING
