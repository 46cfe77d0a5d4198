"""A training run's history: a Parquet artifact, and metrics in the journal."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.core.artifacts import atomic, finite
from reflux.components.core.runtime.checkpoint import Checkpoints
from reflux.components.core.runtime.journal import Journal

_COUNTS = ("step", "images")


def metric_name(column: str) -> str:
    """The name in MLflow of a column of the history: train/kd for train_kd."""
    return column.replace("_", "/", 1) if column.startswith(("train_", "val_")) else column


def to_journal(
    journal: Journal, checkpoints: Checkpoints, phase: str, begun: int = 0
) -> Callable[[dict[str, float]], None]:
    """A callback that writes each row of a history to the journal, once, however often training resumes.

    The curve of a phase begins where those before it end, after ``begun`` steps.
    """

    def report(row: dict[str, float]) -> None:
        step = int(row["step"])
        if step > checkpoints.journaled_step(phase):
            journal.metrics(
                finite({metric_name(key): row[key] for key in row if key not in _COUNTS}), step=begun + step
            )
            checkpoints.mark_journaled(phase, step)

    return report


def write(path: Path, phases: dict[str, list[dict[str, float]]]) -> None:
    """Write the rows of all phases as one table, with the phase in the first column."""
    rows = [{"phase": phase, **row} for phase, history in phases.items() for row in history]
    # A linear probe has no gradient of the whole network, and a teacher that is used unchanged has no phases.
    names = dict.fromkeys(["phase", *_COUNTS, *(name for row in rows for name in row)])
    with atomic(path) as temporary:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), temporary)
