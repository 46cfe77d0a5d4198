"""The figures of the networks' files, and their table."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.edge.files import FILES, OTHER_RUNTIMES
from benchmarks.edge.networks import BATCHES, OTHERS, STUDENT
from benchmarks.harness.results import Figure, Result, read
from reflux.components.advice.bench.report import Row


def figures_of(network: str, rows: Sequence[Row]) -> list[Figure]:
    """The figures of a network's files."""
    figures = []
    for row in rows:
        facts = {"KB": (row.size_bytes / 1024, "KB")}
        if network == STUDENT:
            facts |= {"accuracy": (100 * row.accuracy, "%"), "agreement": (100 * row.agreement, "%")}
        facts |= {"load": (row.load_ms, "ms"), "peak": (row.peak_mb or math.nan, "MB")}
        figures += [
            Figure(f"{network}, {row.name}, {what}", round(v, 2), round(v, 2), round(v, 2), unit)
            for what, (v, unit) in facts.items()
        ]
        for speed in row.speeds:
            name = f"{network}, {row.name}, CPU time, batch {speed.batch}"
            cpu, low, high = (round(each, 3) for each in (speed.cpu, speed.cpu_low, speed.cpu_high))
            figures.append(Figure(name, cpu, low, high, "x"))
    return figures


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    return table(read("edge", folder), (*FILES.values(), *(file.label for file in OTHER_RUNTIMES.values())))


def table(result: Result, names: Sequence[str]) -> str:
    """The networks' files in a table, as Markdown.

    Args:
        result: the figures.
        names: of the files, in the order of the rows; those that were not measured are left out.
    """
    heads = ["KB", "accuracy", "agreement", *(f"CPU time, batch {batch}" for batch in BATCHES), "load ms", "peak MB"]
    lines = [f"| network | file | {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * len(heads)}"]
    for network in (STUDENT, *OTHERS):
        for file in (name for name in names if f"{network}, {name}, KB" in result):
            figures = {what: result[f"{network}, {file}, {what}"] for what in _whats(network)}
            cells = [_cell(figures.get(what)) for what in ("KB", "accuracy", "agreement")]
            cells += [_cell(figures[f"CPU time, batch {batch}"]) for batch in BATCHES]
            cells += [f"{figures[what].value:,.0f}" for what in ("load", "peak")]
            lines.append(f"| {network} | {file} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", str(result)])


def _whats(network: str) -> list[str]:
    answers = ["accuracy", "agreement"] if network == STUDENT else []
    return ["KB", *answers, "load", "peak", *(f"CPU time, batch {batch}" for batch in BATCHES)]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.unit == "x":
        return f"{figure.value:.2f} ({figure.low:.2f} … {figure.high:.2f})" if figure.low < figure.high else "1"
    return f"{figure.value:,.1f}" if figure.unit == "KB" else f"{figure.value:.2f}"
