"""The figures of Hinton, Vinyals and Dean 2015 on MNIST next to ours, as a table and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.results import PICTURES, Figure, of_seeds, read

PICTURE = PICTURES / "hinton_mnist.png"
TEMPERATURES, WIDTHS = (1.0, 2.5, 4.0, 8.0, 20.0), (300, 30)

# What a row says, and the paper's figure, in the order of the table.
PAPER = {
    "teacher_errors": ("teacher, 2 x 1200 units, dropout, constrained weights, jitter", 67.0),
    "student_errors": ("student, 2 x 800 units, alone", 146.0),
    "distilled_errors": ("the student distilled at T = 20", 74.0),
    "distilled_without_3_errors": ("distilled without any 3", 206.0),
    "distilled_without_3_errors_on_3": ("of these, errors on 3s", 133.0),
    "distilled_without_3_bias_errors": ("the same, the bias of 3 raised", 109.0),
    "distilled_without_3_bias_errors_on_3": ("of these, errors on 3s", 14.0),
    "only_7_8_error_rate": ("distilled from 7s and 8s alone, %", 47.3),
    "only_7_8_bias_error_rate": ("the same, their bias lowered, %", 13.2),
}


def figures_of(results: Sequence[Mapping[str, float]]) -> list[Figure]:
    """Each figure's mean over the seeds, with its interval."""
    return [of_seeds(name, [result[name] for result in results], _unit(name)) for name in results[0]]


def table(figures: Sequence[Figure]) -> str:
    """Paper against ours, as Markdown; errors of 10,000 as whole numbers."""
    lines = ["| | paper | ours | interval | the paper's is |", "| --- | ---: | ---: | ---: | --- |"]
    for figure in figures:
        if figure.name in PAPER:
            label, paper = PAPER[figure.name]
            word = "within" if figure.low <= paper <= figure.high else "above" if figure.value < paper else "below"
            digits = 1 if figure.unit == "%" else 0
            ours, low, high = (f"{number:.{digits}f}" for number in (figure.value, figure.low, figure.high))
            lines.append(f"| {label} | {paper:g} | {ours} | {low} … {high} | {word} |")
    return "\n".join(lines)


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    result = read("hinton_mnist", folder)
    return f"{table(result.figures)}\n\n{result}"


def plot(figures: list[Figure], path: Path = PICTURE) -> Path:
    """Errors against the temperature, a panel for each width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by_name = {figure.name: figure for figure in figures}
    _, panels = plt.subplots(1, len(WIDTHS), figsize=(9, 3.2), layout="constrained")
    for axes, width in zip(panels, WIDTHS, strict=True):
        line = [by_name[f"errors_{width}_units_t{temperature:g}"] for temperature in TEMPERATURES]
        values, reach = [figure.value for figure in line], [figure.high - figure.value for figure in line]
        axes.errorbar(TEMPERATURES, values, yerr=reach, marker="o", color="#0b7285", ecolor="#adb5bd", capsize=3)
        axes.set(title=f"2 x {width} units", xlabel="temperature", ylabel="test errors", xscale="log")
        axes.set_xticks(TEMPERATURES, [f"{temperature:g}" for temperature in TEMPERATURES])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=130)
    plt.close()
    return path


def _unit(name: str) -> str:
    if name == "seconds":
        return "s"
    return "%" if name.endswith("rate") else "" if "raise" in name else "errors"
