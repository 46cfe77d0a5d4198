"""A bench in a picture: what each file costs in its runtime, against its size and its accuracy."""

from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from reflux.components.advice.bench.report import Report, Row
from reflux.components.core.artifacts import atomic
from reflux.components.stages.evaluate.figures import clipped, figure_at

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5F6B73")


def draw(report: Report, path: Path) -> None:
    """Draw the processor time of each file, in multiples of the first one's with intervals, at the first setting."""
    first, speed = report.rows[0], report.rows[0].speeds[0]
    with (
        atomic(path) as temporary,
        figure_at(temporary, 9.5, 3.8 + 0.2 * len(report.rows), columns=2) as (figure, axes),
    ):
        for number, row in enumerate(report.rows):
            time = row.speeds[0]
            errors = [[time.cpu - time.cpu_low], [time.cpu_high - time.cpu]]
            look: dict[str, Any] = {"fmt": "o", "color": _COLORS[number % len(_COLORS)], "capsize": 3, "markersize": 6}
            axes[0].errorbar(row.size_bytes / 1024, time.cpu, yerr=errors, label=_in_words(row), **look)
            axes[1].errorbar(time.cpu, row.accuracy, xerr=errors, **look)
        ratio, most = f"processor time, {first.name} = 1", 1.1 * max(row.speeds[0].cpu_high for row in report.rows)
        axes[0].axhline(1, color="#8A949B", linestyle=":", linewidth=1.2)
        axes[0].set(title=f"Files in their runtimes, {report.device}", xlabel="size in KB", ylabel=ratio, xscale="log")
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
        axes[0].xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylim(0, most)
        setting = f"Threads: {speed.threads}, images at once: {speed.batch}"
        axes[1].set(title=setting, xlabel=ratio, ylabel=f"accuracy on {report.images:,} validation images")
        axes[1].set_xlim(0, most)
        axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        figure.legend(loc="outside lower center", ncols=1, fontsize=9)


def _in_words(row: Row) -> str:
    """A line of the table."""
    speed = row.speeds[0]
    peak = "" if row.peak_mb is None else f", {row.peak_mb:,.0f} MB at most"
    return (
        f"{clipped(row.name, 40)}: {row.size_bytes / 1024:,.1f} KB, {100 * row.accuracy:.2f} %, "
        f"p50 {speed.ms_p50:.3g} ms, p95 {speed.ms_p95:.3g} ms, load {row.load_ms:,.0f} ms{peak} "
        f"({row.runtime} {row.runtime_version})"
    )
