"""A search for people: the front as a table, sentences, and the reason for what is taken."""

from typing import Literal

from rich.table import Table
from rich.text import Text

from reflux.components.advice.tune.result import REPEATED, Result, Row, only_the_present
from reflux.components.core.contract import FILES
from reflux.components.registry.policy.gates import Reason
from reflux.flows.report.display import duration

_COLUMNS: dict[str, Literal["left", "right"]] = {
    **{"trial": "right", "student": "left", "px": "right", "ships": "left", "KB": "right", "ms p95": "right"},
    **{"searched": "right", "expected": "right", "steps": "right", "": "left"},
}
_LISTED = 3


def table(result: Result) -> Table:
    """The front, the smallest file first, with the present student and what can be chosen."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column, justify in _COLUMNS.items():
        table.add_column(column, justify=justify, overflow="fold")
    for row in _shown(result):
        table.add_row(*_cells(result, row), style=None if result.passes(row) else "bright_black")
    return table


def markdown(result: Result) -> str:
    """The table and the sentences, as Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(map(str, _cells(result, row)))} |" for row in _shown(result)]
    return "\n\n".join(["\n".join(lines), *sentences(result)])


def _shown(result: Result) -> list[Row]:
    numbers = {row.number for row in result.front} | set(result.choices.values()) | {result.present}
    shown = [row for row in result.rows if row.number in numbers]
    return sorted(shown, key=lambda row: row.figures["size_kb"])


def _cells(result: Result, row: Row) -> tuple[str | Text, ...]:
    words = [choice for choice, number in result.choices.items() if number == row.number]
    words += ["present"] * (row.number == result.present)
    repeats = f"{100 * row.expected['accuracy']:.1f} % ({len(row.repeats)})" if row.repeats else ""
    last = Text(", ".join(words), style="bold")
    if why := _why_not(result, row):
        last.append(f"{'; ' if words else ''}{why}", style="not bold")
    return (
        str(row.number),
        str(row.params["student.model"]),
        str(row.params["student.image_size"]),
        FILES[row.kind].precision if FILES[row.kind].format.extra is None else FILES[row.kind].label,
        f"{row.expected['size_kb']:.1f}",
        f"{row.expected['latency_ms_p95']:.2f}",
        f"{100 * row.figures['accuracy']:.1f} %",
        repeats,
        f"{row.params['student.steps']:,}",
        last,
    )


def _why_not(result: Result, row: Row) -> str:
    """Why a row does not pass; empty if it does."""
    reasons = result.failed(row)
    if reasons:
        return f"fails {', '.join(dict.fromkeys(reason.gate for reason in reasons))}"
    return "" if result.passes(row) else "worse than the present student"


def sentences(result: Result) -> list[str]:
    """What the table does not say."""
    counts = result.counts
    said = [
        f"{counts['trained']} students trained, {counts['stopped']} stopped early, {counts['refused']} not trained, as "
        f"their files can't pass, {counts['repeated']} trained again with another seed, in {duration(result.seconds)}. "
        f"Accuracies are of {result.images:,} validation images; the test split was not opened."
    ]
    if result.luck is not None:
        points = round(100 * result.luck, 1)
        said.append(
            f"The winner's curse: what was chosen {'lost' if points >= 0 else 'gained'} {abs(points):.1f} points when "
            f"it was trained again with other seeds (up to {REPEATED} each), whose mean is the expected accuracy."
        )
    elif only_the_present(result):
        said.append("No other student is as good as the present one: search longer, as the same command goes on.")
    elif result.choices:
        said.append("There was no time to train what was chosen again: the search's own accuracies are too good.")
    present = result.row(result.present) if result.present is not None else None
    if result.bar is not None and present is not None:
        seeds = ", which was trained with several seeds as well" if len(present.repeats) > 1 else ""
        said.append(f"What passes also reaches the {100 * result.bar:.1f} % of the present student{seeds}.")
    if result.importance:
        parts = [f"{knob} {100 * share:.0f} %" for knob, share in list(result.importance.items())[:_LISTED]]
        said.append(f"What decided {result.objectives[0]} most: {', '.join(parts)}.")
    if not result.choices:
        said.append(f"No student passes: {nearest(result)}")
    return said


def nearest(result: Result) -> str:
    """Say what keeps all students from passing, and how near the nearest comes."""
    missed = [(min(_miss(reason) for reason in reasons), row) for row in result.rows if (reasons := result.failed(row))]
    if not missed:
        return "none is as good as the present student; search longer, or widen tune.space."
    _, row = min(missed, key=lambda each: (each[0], each[1].number))
    failing = " ".join(reason.sentence for reason in result.failed(row))
    return f"the nearest is trial {row.number}. {failing} Search longer, widen tune.space, or loosen registry.gates."


def _miss(reason: Reason) -> float:
    if reason.limit is None or reason.value is None:
        return 0.0
    return abs(reason.value - reason.limit) / max(abs(reason.limit), 1e-9)


def reason(result: Result, row: Row) -> str:
    """Why a student was taken, for ``params.yaml``."""
    words = [choice for choice, number in result.choices.items() if number == row.number]
    count = len(row.repeats)
    seeds = f"mean of {count} seeds" if count > 1 else "another seed" if count else "the search's own seed"
    accuracy = f"{100 * row.expected['accuracy']:.1f}% of {result.images:,} validation images ({seeds})"
    role = f"{' and '.join(words)} that passes" if words else "on request"
    return f"reflux tune, trial {row.number}, {role}: {row.expected['size_kb']:.1f} KB, {accuracy}"
