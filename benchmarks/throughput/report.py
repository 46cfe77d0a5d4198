"""The table and the plot of how fast a student is distilled, and what the pipeline around it takes."""

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.harness.results import PAGES, PICTURES, Figure, Result, read

PICTURE = PICTURES / "throughput.png"

# All ratios that are measured, in the order of the table, and times: their meaning, and what they are meant to be.
# What has no target was never promised.
TABLE: dict[str, tuple[str, tuple[str, float] | None]] = {
    "store_over_bare": ("our loop with the store ÷ bare student step, fp32", ("at least", 0.93)),
    "store_over_bare_resnet8x4": ("the same, student resnet8x4", None),
    "store_over_torchdistill_fp32": (
        "our loop with the store ÷ torchdistill as its users run it, fp32",
        ("at least", 2.5),
    ),
    "store_over_torchdistill_fp32_resnet8x4": ("the same, student resnet8x4", None),
    "store_over_torchdistill_best": ("the same, both with bfloat16, channels-last, compile", ("at least", 4.5)),
    "store_over_torchdistill_resnet50": ("the same, both with everything on, ResNet50 teacher", ("at least", 10)),
    "store_over_torchdistill_cached_fp32": (
        "our loop with the store ÷ torchdistill 1.1.4 with its filled cache (one answer an image), fp32",
        None,
    ),
    "store_over_torchdistill_cached_fp32_resnet8x4": ("the same, student resnet8x4", None),
    "store_over_torchdistill_cached_best": ("the same, both with bfloat16, channels-last, compile", None),
    "live_over_torchdistill_fp32": ("our loop with a live teacher ÷ torchdistill, both fp32", ("at least", 1.3)),
    "live_over_torchdistill_fp32_resnet8x4": ("the same, student resnet8x4", None),
    "live_over_torchdistill_best": ("the same, both with everything on", None),
    "store_break_even_epochs": ("epochs until the store has paid for itself, default recipe", None),
    "store_fill_s": ("filling the store, default recipe", None),
    "memory_over_plain": ("peak memory of our loop with the store ÷ the plain loop's", ("at most", 1.2)),
    "first_run_s": ("first `reflux run`, from the command to its prompt", None),
    "training_s": ("training time of the stages of a first `reflux run`, summed", None),
    "orchestration_over_training": (
        "first `reflux run` ÷ the sum of its stages' training time",
        ("at most", 1.25),
    ),
    "wall_over_busy": ("the same ÷ the time in which at least one of them trained", None),
    "unchanged_rerun_s": ("`reflux run` when nothing changed", ("at most", 10)),
}
BARS = {
    "images_per_s_bare": "bare student step (limit)",
    "images_per_s_store": "Reflux, soft-label store",
    "images_per_s_store_eager": "Reflux, soft-label store, bf16",
    "images_per_s_torchdistill_cached_all_on": "torchdistill 1.1.4, its cache, everything on",
    "images_per_s_torchdistill_cached_fp32": "torchdistill 1.1.4, its cache, fp32",
    "images_per_s_live": "Reflux, live teacher",
    "images_per_s_torchdistill_all_on": "torchdistill 1.1.5, everything on",
    "images_per_s_torchdistill_eager": "torchdistill 1.1.5, bf16, channels-last",
    "images_per_s_live_fp32": "Reflux, live teacher, fp32",
    "images_per_s_timm_fp32": "timm LogitDistillationTask, fp32",
    "images_per_s_torchdistill_fp32": "torchdistill 1.1.5, fp32",
    "images_per_s_plain_fp32": "plain PyTorch loop, fp32",
}


def section(folder: Path) -> str:
    """The page's section from the results in a folder, as Markdown."""
    throughput, pipeline = read("throughput", folder), read("pipeline", folder)
    lines = ["| figure | | median | rounds | meant to be |", "| --- | --- | ---: | ---: | ---: |"]
    for name, (meaning, target) in TABLE.items():
        for result in (throughput, pipeline):
            if name in result:
                lines.append(f"| `{name}` | {meaning} | {cells(result[name], target)} |")
    picture = f"![Images per second of each way to train]({os.path.relpath(PICTURE, PAGES)})"
    return "\n".join([*lines, "", str(throughput), str(pipeline), "", picture])


def cells(figure: Figure, target: tuple[str, float] | None) -> str:
    """Median, rounds and target of a row."""
    value, low, high = (f"{number:,.3g}" for number in (figure.value, figure.low, figure.high))
    unit = "" if figure.unit in ("x", "epochs") else f" {figure.unit}"
    meant = ""
    if target:
        bound, limit = target
        kept = figure.value >= limit if bound == "at least" else figure.value <= limit
        meant = f"{bound} {limit:g}" + ("" if kept else ": missed")
    return f"{value}{unit} | {low} … {high} | {meant}"


def plot(throughput: Result, path: Path = PICTURE) -> None:
    """Draw bars of images a second, with the lowest and highest round marked."""
    names = [name for name in BARS if name in throughput][::-1]
    figures = [throughput[name] for name in names]
    values = [figure.value for figure in figures]
    low = [figure.value - figure.low for figure in figures]
    high = [figure.high - figure.value for figure in figures]
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
