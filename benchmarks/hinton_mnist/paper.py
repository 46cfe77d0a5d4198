"""The figures of Hinton, Vinyals and Dean 2015 on MNIST next to ours, as a table and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results import PICTURES, Figure, of_seeds

PICTURE = PICTURES / "hinton_mnist.png"
TEMPERATURES, WIDTHS = (1.0, 2.5, 4.0, 8.0, 20.0), (300, 30)

# What the paper says, in the order of the table.
PAPER = {
    "teacher_errors": 67.0,
    "student_errors": 146.0,
    "distilled_errors": 74.0,
    "distilled_without_3_errors": 206.0,
    "distilled_without_3_errors_on_3": 133.0,
    "distilled_without_3_bias_errors": 109.0,
    "distilled_without_3_bias_errors_on_3": 14.0,
    "only_7_8_error_rate": 47.3,
    "only_7_8_bias_error_rate": 13.2,
}


def figures_of(results: Sequence[Mapping[str, float]]) -> list[Figure]:
    """Each figure's mean over the seeds, with its interval."""
    return [of_seeds(name, [result[name] for result in results], _unit(name)) for name in results[0]]


def table(figures: list[Figure]) -> str:
    """Paper against ours, as Markdown."""
    lines = ["| | paper | ours | interval | |", "| --- | ---: | ---: | ---: | --- |"]
    for figure in figures:
        if figure.name in PAPER:
            paper = PAPER[figure.name]
            word = "within" if figure.low <= paper <= figure.high else "better" if figure.value < paper else "worse"
            lines.append(
                f"| `{figure.name}` | {paper:g} | {figure.value:g} | {figure.low:g} … {figure.high:g} | {word} |"
            )
    return "\n".join(lines)


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
