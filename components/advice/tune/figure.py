"""A study in a picture: accuracy against size, the front, and the gates."""

from pathlib import Path

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from reflux.components.advice.tune.result import Result
from reflux.components.core.artifacts import atomic
from reflux.components.core.contract import FILES
from reflux.components.stages.evaluate.figures import figure_at

_COLORS = {"fp32": "#0072B2", "int8": "#D55E00"}
_GATE, _FRONT = "#5F6B73", "#009E73"


def draw(result: Result, path: Path) -> None:
    """Draw each student that was trained, the line of the front, a line for each gate, and the ones to choose from."""
    with atomic(path) as temporary, figure_at(temporary, 7.5, 4.6) as (figure, [axes]):
        for precision, color in _COLORS.items():
            rows = [row for row in result.rows if FILES[row.kind].precision == precision]
            if rows:
                sizes = [row.figures["size_kb"] for row in rows]
                accuracies = [row.figures["accuracy"] for row in rows]
                axes.plot(sizes, accuracies, "o", color=color, alpha=0.55, markersize=5, label=precision)
        points = [(row.expected["size_kb"], row.expected["accuracy"]) for row in result.front]
        axes.plot(*zip(*points, strict=True), color=_FRONT, linewidth=1.2, marker=".", label="front")
        for number in dict.fromkeys(result.choices.values()):
            row = next(row for row in result.rows if row.number == number)
            place = row.expected["size_kb"], row.expected["accuracy"]
            words = ", ".join(choice for choice, chosen in result.choices.items() if chosen == number)
            axes.annotate(words, place, (6, -12), textcoords="offset points", fontweight="bold", fontsize=9)
        if limit := result.gates.get("accuracy", {}).get("min"):
            axes.axhline(limit, color=_GATE, linestyle="--", linewidth=1.2, label="gate")
        if result.bar is not None:
            axes.axhline(result.bar, color=_GATE, linestyle=":", linewidth=1.2, label="as good as the present one")
        if limit := result.gates.get("size_kb", {}).get("max"):
            axes.axvline(limit, color=_GATE, linestyle="--", linewidth=1.2)
        axes.set(title="Students of this study", xlabel="size of the file in KB", xscale="log")
        axes.set(ylabel=f"accuracy on {result.images:,} validation images")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
