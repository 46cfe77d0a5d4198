"""The absolute gates: limits on the shipped file's figures, whatever the champion's are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.core.contract import FIGURES

Side = Literal["min", "max"]
Bounds = Mapping[str, Mapping[str, float]]  # {figure: {"min": limit, "max": limit}}, as in params.yaml


@dataclass(frozen=True)
class Reason:
    """The result of one check of the policy.

    Attributes:
        gate: the figure's name, ``slices.<column>.<figure>``, ``champion`` (not worse), ``advantage`` (better, smaller
            or faster), ``smoke``, ``rollback`` or ``gates`` (none is configured).
        limit: the threshold, in the figure's own unit.
        value: the measured value; None if it was not measured.
        passed: None if that is unknown.
        sentence: the same for people.
    """

    gate: str
    side: Side
    limit: float | None
    value: float | None
    passed: bool | None
    sentence: str


def gated_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the shipped file that gates can limit, from ``metrics.json``; unmeasured ones are absent."""
    shipped = dict(metrics.get("shipped", {}).get("onnx", {}))
    if as_number(shipped.get("size_bytes")) is not None:
        shipped["size_kb"] = shipped["size_bytes"] / 1024
    return {name: value for name in FIGURES if (value := as_number(shipped.get(name))) is not None}


def thresholds(figures: Mapping[str, float], gates: Bounds) -> list[Reason]:
    """A reason for each side of each gate on the figures, those of :func:`gated_figures`."""
    return [_threshold(name, side, limit, figures.get(name)) for name, side, limit in sides(gates)]


def none_configured() -> Reason:
    """The reason why nothing is promoted without gates; as in TFX, a forgotten gate is no approval."""
    sentence = "No gate is configured, so nothing is promoted: set registry.gates in params.yaml."
    return Reason("gates", "min", 1, 0, None, sentence)


def sides(bounds: Bounds) -> list[tuple[str, Side, float]]:
    """Every limit that is set, as figure, side and limit."""
    names: tuple[Side, Side] = ("min", "max")
    return [
        (figure, side, limit)
        for figure, bound in bounds.items()
        for side in names
        if (limit := bound.get(side)) is not None
    ]


def within(value: float, side: Side, limit: float) -> bool:
    """Tell whether a value keeps to a limit."""
    return value >= limit if side == "min" else value <= limit


def as_number(value: Any) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def format_value(value: float, other: float | None = None) -> str:
    """Format a value with four digits, or as many as it takes to distinguish it from ``other``."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if other is None or value == other or float(text) != other:
            return text
    return repr(value)


def _threshold(name: str, side: Side, limit: float, value: float | None) -> Reason:
    figure = FIGURES[name]
    label, unit = figure.label, f" {figure.unit}" if figure.unit else ""
    low = side == "min"
    word, wanted = "minimum" if low else "maximum", f"{format_value(limit)}{unit}"
    if value is None or math.isnan(limit):
        missing = "was not measured" if value is None else "can't be compared"
        return Reason(name, side, as_number(limit), value, None, f"{label} {missing}, and the {word} is {wanted}.")
    passed = within(value, side, limit)
    verb = ("reaches" if low else "is within") if passed else ("is below" if low else "exceeds")
    sentence = f"{label} {format_value(value, limit)}{unit} {verb} the {word} of {wanted}."
    return Reason(name, side, as_number(limit), value, passed, sentence)
