"""Files side by side, for people: a table, what it does not say, and runs in MLflow."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reflux.components.advice.bench.report import Report, Row, slower
from reflux.components.core.artifacts import write_json
from reflux.components.core.runtime.journal import Journal
from reflux.components.observe.boards.declared import BENCH, BENCH_PICTURE
from reflux.components.registry.versions import device_reports

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
        facts += [f"{row.load_ms:,.0f}", "" if row.peak_mb is None else f"{row.peak_mb:,.0f}"]
        for number, speed in enumerate(row.speeds):
            times = [f"{speed.ms_p50:.3g}", f"{speed.ms_p95:.3g}"]
            ratio = f"{speed.cpu:.2f} ({speed.cpu_low:.2f} to {speed.cpu_high:.2f})" if row is not rows[0] else "1"
            shown = [""] * len(facts) if number else facts
            table.add_row(*shown, str(speed.threads), str(speed.batch), *times, ratio)
    return table


def sentences(report: Report) -> list[str]:
    """What the table does not say."""
    first, rows = report.rows[0].name, report.rows
    runtimes = dict.fromkeys(f"{row.runtime} {row.runtime_version}" for row in rows)
    said = [
        f"accuracy, agrees (with {first}): on {report.images:,} validation images. CPU time: in multiples of "
        f"{first}'s, run in turn, the median of 15 rounds with its interval (sign test). p50, p95: what one waits, too "
        "long on a busy machine. load: processor time up to the first answer; peak: memory of a process that runs the "
        f"file alone, its runtime included ({', '.join(runtimes)})."
    ]
    for row, speeds in slower(rows):
        slow = ", ".join(f"{speed.threads}/{speed.batch}" for speed in speeds)
        said.append(f"{row.name} takes more time than {first} at {slow} threads/images.")
    said += [
        f"{row.name} answers {100 * row.reproduced:.4g} % of the images on {report.device} as it does here."
        for row in rows
        if row.reproduced < 1
    ]
    return said


def log(report: Report, project: str, versions: Mapping[str, Sequence[int]] | None = None) -> None:
    """Log a report to MLflow: a run with its figures as a file and a picture, and a child of it for each row.

    Args:
        report: of this machine or, with versions, of a device.
        project: the experiment.
        versions: those that each file is, by its hash.
    """
    from reflux.components.advice.bench.figure import draw

    device = {device_reports.DEVICE: report.device} if versions is not None else {}
    name = "-".join(["bench", *device.values(), f"{datetime.now(UTC):%Y%m%d-%H%M%S}"])
    journal = Journal(project, name, {"run_kind": BENCH, **device})
    journal.params({name: value for name, value in report.model_dump(mode="json").items() if name != "rows"})
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        write_json(path := Path(folder, "bench.json"), report.model_dump(mode="json"))
        journal.artifact(path)
        draw(report, picture := Path(folder, "bench.png"))
        journal.image(BENCH_PICTURE, picture)
    for row in report.rows:
        of = {"version": ", ".join(map(str, numbers))} if (numbers := (versions or {}).get(row.sha256)) else {}
        child = Journal(project, row.name, {"run_kind": device_reports.KIND, **device, **of}, parent=journal.id)
        runtime = {device_reports.RUNTIME: f"{row.runtime} {row.runtime_version}", device_reports.SHA256: row.sha256}
        child.params({**runtime, "compared_with": report.rows[0].name})
        figures = {"size_bytes": row.size_bytes, "val_accuracy": row.accuracy, "agreement": row.agreement}
        figures |= {device_reports.REPRODUCED: row.reproduced, "load_ms": row.load_ms}
        child.metrics(figures | ({} if row.peak_mb is None else {"peak_mb": row.peak_mb}))
        for speed in row.speeds:
            key = f"threads_{speed.threads}/batch_{speed.batch}"
            times = speed.model_dump(exclude={"threads", "batch"})
            child.metrics({f"{key}/{name}": value for name, value in times.items()})
        child.end("FINISHED")
    journal.end("FINISHED")
