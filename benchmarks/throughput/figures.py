"""The figures of the page's table, from the rounds of the arms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from benchmarks.harness.results import Figure, of_rounds
from benchmarks.throughput.arm import Arm
from benchmarks.throughput.setting import VIEWS


def figures_of(arms: Mapping[str, Arm], images: int, suffix: str = "") -> list[Figure]:
    """The table's figures, as far as their arms were run, and every arm's speed and memory."""
    rates = {name: arm.rates for name, arm in arms.items()}
    figures = [ratio("store_over_bare", rates["store"], rates["bare"])]
    if "torchdistill_fp32" in rates:
        figures.append(ratio("store_over_torchdistill_fp32", rates["store"], rates["torchdistill_fp32"]))
        figures.append(ratio("live_over_torchdistill_fp32", rates["live_fp32"], rates["torchdistill_fp32"]))
    if "torchdistill_eager" in rates:
        peer = faster_variant(rates, "torchdistill")
        figures.append(ratio("store_over_torchdistill_best", faster_variant(rates, "store"), peer))
        figures.append(ratio("live_over_torchdistill_best", rates["live"], peer))
    if "torchdistill_cached_fp32" in rates:
        peer = rates["torchdistill_cached_fp32"]
        figures.append(ratio("store_over_torchdistill_cached_fp32", rates["store"], peer))
    if "torchdistill_cached_eager" in rates:
        peer = faster_variant(rates, "torchdistill_cached")
        figures.append(ratio("store_over_torchdistill_cached_best", faster_variant(rates, "store"), peer))
    if "torchdistill_resnet50_eager" in rates:
        peer = faster_variant(rates, "torchdistill_resnet50")
        figures.append(ratio("store_over_torchdistill_resnet50", faster_variant(rates, "store"), peer))
    if "live_recipe" in rates:
        figures += break_even(rates["store"], rates["live_recipe"], rates["fill_recipe"], images)
    if "plain_fp32" in arms:
        memory = round(arms["store"].peak_mb / arms["plain_fp32"].peak_mb, 3)
        figures.append(Figure("memory_over_plain", memory, memory, memory, "x"))
    figures += [of_rounds(f"images_per_s_{name}", values, "images/s") for name, values in rates.items()]
    peaks = {name: round(arm.peak_mb) for name, arm in arms.items()}
    figures += [Figure(f"peak_mb_{name}", peak, peak, peak, "MB") for name, peak in peaks.items()]
    return [replace(figure, name=figure.name + suffix) for figure in figures]


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> Figure:
    """How many times as fast one arm is as another, round by round."""
    return of_rounds(name, [a / b for a, b in zip(above, below, strict=True)], "x")


def faster_variant(rates: Mapping[str, list[float]], name: str) -> list[float]:
    """The rates of the faster of two variants with everything on."""
    return max((rates[f"{name}_{variant}"] for variant in ("eager", "all_on")), key=median)


def break_even(store: Sequence[float], live: Sequence[float], fill: Sequence[float], images: int) -> list[Figure]:
    """The number of epochs after which filling and reading the store takes no longer than a live teacher."""
    epochs = [VIEWS / f / (1 / li - 1 / s) for s, li, f in zip(store, live, fill, strict=True)]
    seconds = [images * VIEWS / f for f in fill]
    return [of_rounds("store_break_even_epochs", epochs, "epochs"), of_rounds("store_fill_s", seconds, "s")]
