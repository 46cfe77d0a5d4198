"""The ranking in a picture: accuracy against what it costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from reflux.components.advice.teachers.result import Row
from reflux.components.core.artifacts import atomic
from reflux.components.stages.evaluate.figures import clipped, figure_at

# Okabe and Ito (2008), black last.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5F6B73", "#000000")
_MARKERS = "oDs^vP"


def accuracy_against_cost(rows: Sequence[Row], path: Path) -> None:
    """Draw each network's accuracy, with its interval, over the seconds for 1,000 images; a line joins its sizes."""
    names = sorted({row.name for row in rows}, key=[row.name for row in rows].index)
    with atomic(path) as temporary, figure_at(temporary, 7.5, 4.2) as (figure, [axes]):
        for number, name in enumerate(names):
            own = sorted((row for row in rows if row.name == name), key=lambda row: row.seconds)
            below, above = [row.accuracy - row.low for row in own], [row.high - row.accuracy for row in own]
            marker = _MARKERS[number // len(_COLORS) % len(_MARKERS)]
            look: dict[str, Any] = {"color": _COLORS[number % len(_COLORS)], "marker": marker}
            seconds, accuracies = [row.seconds for row in own], [row.accuracy for row in own]
            axes.errorbar(
                seconds, accuracies, [below, above], elinewidth=0.8, capsize=2, label=clipped(name, 32), **look
            )
            for row in own:
                axes.annotate(f"{row.image_size} px", (row.seconds, row.accuracy), (4, 4), textcoords="offset points")
        axes.set(title="Frozen features of each teacher", ylabel="accuracy of a linear probe (95 % interval)")
        axes.set(xlabel="seconds for 1,000 images on this machine", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
