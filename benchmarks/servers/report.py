"""The tables of ``infra/SCALING.md``: servers and DVC under growing loads."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.harness.results import Figure, read


def section(folder: Path) -> str:
    """Figures of servers and DVC, as Markdown: a table for each kind of load.

    A figure is named ``LOAD: FIGURE``: loads that end in the same word (100 runs, 1,000 runs) are a table's columns.
    """
    lines = []
    for name in ("servers", "remote"):
        result = read(name, folder)
        for _, of_kind in groupby(result.figures, lambda figure: figure.name.partition(":")[0].split()[-1]):
            lines += [*pivot(list(of_kind)), ""]
        lines += [str(result), ""]
    return "\n".join(lines).strip()


def pivot(figures: Sequence[Figure]) -> list[str]:
    """A table with a column for each load, and a row for each figure."""
    cells: dict[str, dict[str, str]] = {}
    for figure in figures:
        load, _, name = figure.name.partition(": ")
        unit = f", {figure.unit}" if figure.unit else ""
        cells.setdefault(name + unit, {})[load] = spread(figure)
    heads = list(dict.fromkeys(load for row in cells.values() for load in row))
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    return lines + [f"| {name} | {' | '.join(row.get(load, '') for load in heads)} |" for name, row in cells.items()]


def spread(figure: Figure) -> str:
    """A value, with its extremes where it was measured more than once."""
    numbers = (figure.value, figure.low, figure.high)
    value, low, high = (f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for number in numbers)
    return value if low == high else f"{value} ({low} … {high})"
