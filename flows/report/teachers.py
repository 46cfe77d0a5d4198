"""The ranking of teachers for people: a table, sentences, and runs in MLflow."""

from datetime import UTC, datetime
from typing import Literal

from rich.table import Table
from rich.text import Text

from reflux.components.advice.teachers.result import PICTURE, RANKING, Ranking, Row, cheapest_as_good
from reflux.components.core.runtime.journal import Journal
from reflux.flows.report.display import duration

_COLUMNS: dict[str, Literal["left", "right"]] = {
    **{
        "teacher": "left",
        "weights": "left",
        "px": "right",
        "accuracy": "right",
        "95 %": "right",
        "to the best": "left",
    },
    **{"parameters": "right", "s/1,000": "right", "run": "right", "license": "left"},
}


def table(ranking: Ranking) -> Table:
    """The rows, the best first."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column, justify in _COLUMNS.items():
        table.add_column(column, justify=justify, overflow="fold")
    best, cheapest = ranking.rows[0], cheapest_as_good(ranking.rows)
    for row in ranking.rows:
        table.add_row(*_cells(row, best), style="bold" if row == cheapest else None)
    return table


def _cells(row: Row, best: Row) -> tuple[str | Text, ...]:
    behind = f"{100 * (row.accuracy - best.accuracy):+.1f} (p {row.p_value:.1g})" if row != best else ""
    license = Text(row.license or "not known")
    if not row.commercial:
        license.append(" (not commercial)", style="red")
    return (
        Text(row.name),
        row.weights if row.weights in ("pypi", "timm") else "file",
        str(row.image_size),
        f"{100 * row.accuracy:.1f} %",
        f"{100 * row.low:.1f} … {100 * row.high:.1f}",
        behind,
        f"{row.parameters:,}",
        f"{row.seconds:.2g}" if row.seconds < 10 else f"{row.seconds:,.0f}",
        duration(row.run_seconds),
        license,
    )


def sentences(ranking: Ranking) -> list[str]:
    """What the table does not say."""
    row = cheapest_as_good(ranking.rows)
    said = [
        f"Accuracy of a linear probe on frozen features of {ranking.images:,} images of train and val, each classified "
        "by the probe that was fitted to all others. s/1,000: seconds for so many images; run: a whole `reflux run`.",
        f"The shortest run of those that are not clearly worse than the best: {row.name} at {row.image_size} pixels.",
    ]
    if knowing := sorted({row.name for row in ranking.rows if row.knows}):
        said.append(f"Warning: {', '.join(knowing)} may have been trained on these images, and then looks too good.")
    return [*said, *(f"Left out: {why}" for why in ranking.left_out)]


def reason(ranking: Ranking, row: Row) -> str:
    """Why a teacher was taken, for ``params.yaml``."""
    place = 1 + ranking.rows.index(row)
    of = f"the best of {len(ranking.rows)}" if place == 1 else f"number {place} of {len(ranking.rows)}"
    shown = f"{100 * row.accuracy:.1f}% ({100 * row.low:.1f} to {100 * row.high:.1f})"
    return f"reflux teachers: a linear probe gets {shown} of {ranking.images:,} images, {of}"


def log(ranking: Ranking, project: str) -> None:
    """Log the ranking to MLflow: a run with the picture, and a child of it for each row."""
    journal = Journal(project, f"teachers-{datetime.now(UTC):%Y%m%d-%H%M%S}", {"run_kind": "teachers"})
    journal.metrics({"probe/images": ranking.images})
    for file in (RANKING, PICTURE):
        journal.artifact(file)
    for row in ranking.rows:
        name = f"{row.name} at {row.image_size} px"
        child = Journal(project, name, {"run_kind": "teacher candidate"}, parent=journal.id)
        child.params({"pretrain": {"model": row.model, "weights": row.weights}, "finetune.image_size": row.image_size})
        child.tags({"license": row.license or "not known"})
        figures = {"probe/accuracy": row.accuracy, "probe/ci95_low": row.low, "probe/ci95_high": row.high}
        figures |= {f"probe/recall/{number}": recall for number, recall in enumerate(row.recalls) if recall is not None}
        costs = {"params": row.parameters, "s_per_1000_images": row.seconds, "run_s": row.run_seconds}
        child.metrics(figures | costs)
        child.end("FINISHED")
    journal.end("FINISHED")
