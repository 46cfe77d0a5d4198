"""Files side by side, for people: a table, what it does not say, and runs in MLflow."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reflux.components.bench.measure import Row
from reflux.components.core.artifacts import write_json
from reflux.components.core.runtime.journal import Journal

_FACTS = ("file", "KB", "accuracy", "agrees", "load ms", "peak MB")
_SPEEDS = ("threads", "images", "p50 ms", "p95 ms", "CPU time")


def table(rows: Sequence[Row]) -> Table:
    """A line for each file and each number of threads and images."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in (*_FACTS, *_SPEEDS):
        table.add_column(column, justify="left" if column == "file" else "right", overflow="fold")
    for row in rows:
        facts: list[str | Text] = [Text(row.name), f"{row.size_bytes / 1024:,.1f}"]
        facts += [f"{100 * row.accuracy:.2f} %", f"{100 * row.agreement:.2f} %"]
        facts += [f"{row.load_ms:,.0f}", f"{row.peak_mb:,.0f}"]
        for number, speed in enumerate(row.speeds):
            times = [f"{speed.ms_p50:.3g}", f"{speed.ms_p95:.3g}"]
            ratio = f"{speed.cpu:.2f} ({speed.cpu_low:.2f} to {speed.cpu_high:.2f})" if row is not rows[0] else "1"
            shown = [""] * len(facts) if number else facts
            table.add_row(*shown, str(speed.threads), str(speed.batch), *times, ratio)
    return table


def sentences(rows: Sequence[Row], images: int) -> list[str]:
    """What the table does not say."""
    first = rows[0].name
    said = [
        f"accuracy, agrees (with {first}): on {images:,} validation images. CPU time: in multiples of {first}'s, run "
        "in turn, the median of 15 rounds with its interval (sign test). p50, p95: what one waits, too long on a busy "
        "machine. load: processor time up to the first answer; peak: memory of a process that runs the file alone, its "
        f"runtime included ({', '.join(dict.fromkeys(row.runtime for row in rows))})."
    ]
    for row in rows[1:]:
        if slow := [f"{speed.threads}/{speed.batch}" for speed in row.speeds if speed.cpu_low > 1]:
            said.append(f"{row.name} takes more time than {first} at {', '.join(slow)} threads/images.")
    return said


def log(rows: Sequence[Row], files: Mapping[str, Path], images: int, project: str) -> None:
    """Log the table to MLflow: a run with its figures as a file, and a child of it for each row."""
    journal = Journal(project, f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}", {"run_kind": "bench"})
    journal.metrics({"validation images": images})
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        write_json(path := Path(folder, "bench.json"), {"rows": [asdict(row) for row in rows], "images": images})
        journal.artifact(path)
    for row in rows:
        child = Journal(project, row.name, {"run_kind": "bench file"}, parent=journal.id)
        child.params({"runtime": row.runtime, "sha256": row.sha256, "compared_with": rows[0].name})
        figures = {"size_bytes": row.size_bytes, "val_accuracy": row.accuracy, "agreement": row.agreement}
        child.metrics(figures | {"load_ms": row.load_ms, "peak_mb": row.peak_mb})
        for speed in row.speeds:
            key = f"threads_{speed.threads}/batch_{speed.batch}"
            own = {name: value for name, value in asdict(speed).items() if name not in ("threads", "batch")}
            child.metrics({f"{key}/{name}": value for name, value in own.items()})
        child.end("FINISHED")
    journal.end("FINISHED")
