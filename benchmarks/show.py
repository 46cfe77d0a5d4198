"""Rewrite the README's table and plot, and the tables of ``infra/SCALING.md``, from the results of the benchmarks.

.venv/bin/python -m benchmarks.show
"""

import json
import re
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.results import PICTURES, RESULTS, ROOT

README, PICTURE = ROOT / "README.md", PICTURES / "throughput.png"
BEGIN, END = "<!-- how fast: python -m benchmarks.show -->", "<!-- /how fast -->"
SCALING = ROOT / "infra/SCALING.md"
BEGIN_LOADS, END_LOADS = "<!-- measured: python -m benchmarks.show -->", "<!-- /measured -->"

# The figures in the order of the table: their meaning, and what they are meant to be.
TABLE = {
    "store_over_bare": ("our loop with the store ÷ bare student step, fp32", "at least 0.93"),
    "store_over_torchdistill_fp32": (
        "our loop with the store ÷ torchdistill as its users run it, fp32",
        "at least 2.5",
    ),
    "store_over_torchdistill_best": (
        "the same, both with bfloat16, channels-last, compile",
        "at least 4.5",
    ),
    "store_over_torchdistill_resnet50": ("the same, both with everything on, ResNet50 teacher", "at least 10"),
    "live_over_torchdistill_fp32": ("our loop with a live teacher ÷ torchdistill, both fp32", "at least 1.3"),
    "store_break_even_epochs": ("epochs until the store has paid for itself, default recipe", ""),
    "store_fill_s": ("filling the store, default recipe", ""),
    "memory_over_plain": ("peak memory of our loop with the store ÷ the plain loop's", "at most 1.2"),
    "orchestration_over_training": ("first `reflux run` ÷ the sum of its stages' training time", "at most 1.25"),
    "wall_over_busy": ("the same ÷ the time in which at least one of them trained", ""),
    "unchanged_rerun_s": ("`reflux run` when nothing changed", "at most 15"),
}
BARS = {
    "images_per_s_bare": "bare student step (limit)",
    "images_per_s_store": "Reflux, soft-label store",
    "images_per_s_store_eager": "Reflux, soft-label store, bf16",
    "images_per_s_live": "Reflux, live teacher",
    "images_per_s_torchdistill_all_on": "torchdistill 1.1.5, everything on",
    "images_per_s_torchdistill_eager": "torchdistill 1.1.5, bf16, channels-last",
    "images_per_s_live_fp32": "Reflux, live teacher, fp32",
    "images_per_s_timm_fp32": "timm LogitDistillationTask, fp32",
    "images_per_s_torchdistill_fp32": "torchdistill 1.1.5, fp32",
    "images_per_s_plain_fp32": "plain PyTorch loop, fp32",
}

Figures = dict[str, dict[str, Any]]


def read(folder: Path) -> tuple[Figures, list[str]]:
    """All figures by name, and a line for each file on where it was measured."""
    figures: Figures = {}
    origins = []
    for name in ("throughput", "pipeline", "scale"):
        path = folder / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            figures |= {figure["name"]: figure for figure in result["figures"]}
            origins.append(f"`{name}.json`: {result['machine']}; commit {result['commit']}.")
    return figures, origins


def table(figures: Figures, origins: list[str]) -> str:
    """The measured part of the README's section, as Markdown."""
    lines = ["| figure | | median | rounds | meant to be |", "| --- | --- | ---: | ---: | ---: |"]
    for name, (meaning, meant) in TABLE.items():
        if name in figures:
            figure = figures[name]
            value, low, high = (f"{figure[key]:,.3g}" for key in ("value", "low", "high"))
            unit = "" if figure["unit"] in ("x", "epochs") else f" {figure['unit']}"
            lines.append(f"| `{name}` | {meaning} | {value}{unit} | {low} … {high} | {meant} |")
    lines += [
        "",
        *growth(figures),
        *origins,
        "",
        f"![Images per second of each way to train]({PICTURE.relative_to(ROOT)})",
    ]
    return "\n".join(lines)


def growth(figures: Figures) -> list[str]:
    """A table of how time and memory grow with the number of images; empty where it was not measured."""
    counts = sorted({int(match[1]) for name in figures if (match := re.fullmatch(r"ingest_(\d+)k_s", name))})
    if not counts:
        return []
    heads = [f"{1000 * count:,} images" for count in counts]
    lines = [f"| stage | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(counts)]
    for stage in ("ingest", "validate", "label", "distill"):
        cells = []
        for count in counts:
            seconds, peak = (figures[f"{stage}_{count}k_{unit}"]["value"] for unit in ("s", "peak_mb"))
            cells.append(f"{seconds:,.0f} s, {peak:,.0f} MB")
        lines.append(f"| `{stage}` | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "A small teacher, one view an image, 300 steps of distillation; memory that is not a mapped file.",
        "",
    ]


def plot(figures: Figures, path: Path) -> None:
    """Draw bars of images a second, with the lowest and highest round marked."""
    names = [name for name in BARS if name in figures][::-1]
    values = [figures[name]["value"] for name in names]
    low = [figures[name]["value"] - figures[name]["low"] for name in names]
    high = [figures[name]["high"] - figures[name]["value"] for name in names]
    colors = ["#0b7285" if "Reflux" in BARS[name] else "#adb5bd" for name in names]
    _, axes = plt.subplots(figsize=(9, 0.5 + 0.42 * len(names)), layout="constrained")
    bars = axes.barh([BARS[name] for name in names], values, xerr=[low, high], color=colors, ecolor="#495057")
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=6)
    axes.set_xlabel("images/s: training resnet8_slim at 28 px, EfficientNet-Lite0 teacher at 64 px, on a CPU")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=130)
    plt.close()


def loads(folder: Path) -> str:
    """Figures of servers and DVC under growing loads, as Markdown: a table for each kind of load.

    A figure is named ``LOAD: FIGURE``: loads that end in the same word (100 runs, 1,000 runs) are a table's columns.
    """
    lines = []
    for name in ("servers", "remote"):
        result = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for _, of_kind in groupby(result["figures"], lambda figure: figure["name"].partition(":")[0].split()[-1]):
            lines += [*pivot(list(of_kind)), ""]
        lines += [f"`{name}.json`: {result['machine']}; commit {result['commit']}.", ""]
    return "\n".join(lines).strip()


def pivot(figures: Sequence[dict[str, Any]]) -> list[str]:
    """A table with a column for each load, and a row for each figure."""
    cells: Figures = {}
    for figure in figures:
        load, _, name = figure["name"].partition(": ")
        unit = f", {figure['unit']}" if figure["unit"] else ""
        cells.setdefault(name + unit, {})[load] = spread(figure)
    heads = list(dict.fromkeys(load for row in cells.values() for load in row))
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    return lines + [f"| {name} | {' | '.join(row.get(load, '') for load in heads)} |" for name, row in cells.items()]


def spread(figure: dict[str, Any]) -> str:
    """A value, with its extremes where it was measured more than once."""
    numbers = (figure[key] for key in ("value", "low", "high"))
    value, low, high = (f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for number in numbers)
    return value if low == high else f"{value} ({low} … {high})"


def rewrite(path: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two markers of a file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Rewrite the text between the markers, and the picture."""
    figures, origins = read(RESULTS)
    if not figures:
        sys.exit("Error: benchmarks/results/ holds no throughput.json: run `make bench` first.")
    plot(figures, PICTURE)
    rewrite(README, BEGIN, END, table(figures, origins))
    rewrite(SCALING, BEGIN_LOADS, END_LOADS, loads(RESULTS))
    print(f"Written: {', '.join(str(path.relative_to(ROOT)) for path in (README, SCALING, PICTURE))}")


if __name__ == "__main__":
    main()
