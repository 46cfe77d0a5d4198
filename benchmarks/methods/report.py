"""The figures of all methods, and the page's table of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.results import Figure, of_rounds, of_seeds, read
from benchmarks.methods.students import CONTROL


def figures_of(results: Mapping[str, Mapping[str, float]], times: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Accuracy, and gain over control and over kd, of every student and method; processor time of a step."""
    figures = [of_seeds("teacher", list(results["teacher"].values()), "%")]
    for name, by_seed in results.items():
        student, _, method = name.partition("/")
        if method:
            figures.append(of_seeds(f"{name}/accuracy", list(by_seed.values()), "%"))
            for other in (CONTROL, "kd"):
                if method != other and f"{student}/{other}" in results:
                    gains = [value - results[f"{student}/{other}"][seed] for seed, value in by_seed.items()]
                    figures.append(of_seeds(f"{name}/gain_over_{other}", gains, "points"))
    return figures + [of_rounds(f"step_ms/{method}", values, "ms") for method, values in times.items()]


def table(figures: Sequence[Figure]) -> str:
    """The page's table: the methods from best to worst on the first student."""
    by_name = {figure.name: figure for figure in figures}
    students = list(dict.fromkeys(name.split("/")[0] for name in by_name if name.endswith("/accuracy")))
    first = {name.removeprefix(f"{students[0]}/").removesuffix("/accuracy"): figure for name, figure in by_name.items()}
    methods = [name for name in first if f"{students[0]}/{name}/accuracy" in by_name]

    def cell(name: str) -> str:
        figure = by_name.get(name)
        return f"{figure.value:.2f} ± {figure.high - figure.value:.2f}" if figure else ""

    timed = any(name.startswith("step_ms/") for name in by_name)
    titles = [title for student in students for title in (student, "over control", "over kd")]
    titles += ["ms of a step"] if timed else []
    lines = [f"| method | {' | '.join(titles)} |", f"| --- |{' ---: |' * len(titles)}"]
    for method in sorted(methods, key=lambda name: -first[name].value):
        cells = [
            cell(f"{student}/{method}/{figure}")
            for student in students
            for figure in ("accuracy", f"gain_over_{CONTROL}", "gain_over_kd")
        ]
        step = by_name.get(f"step_ms/{method}")
        cells += [f"{step.value:.0f}" if step else ""] if timed else []
        lines.append(f"| {method.replace('/', ', ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def section(folder: Path, name: str = "methods") -> str:
    """The page's table from the results of a name in a folder, as Markdown."""
    result = read(name, folder)
    return f"{table(result.figures)}\n\n{result}"
