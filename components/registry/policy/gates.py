"""The absolute gates: what the file that ships must reach, whoever is in production."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.core.contract import FIGURES

Side = Literal["min", "max"]
Bounds = Mapping[str, Mapping[str, float]]  # {figure: {"min": limit, "max": limit}}, as in params.yaml


@dataclass(frozen=True)
class Reason:
    """What one threshold says.

    Attributes:
        gate: the figure's name, ``slices.<column>.<figure>``, ``champion`` (not worse), ``advantage`` (better, smaller
            or faster), ``smoke``, ``rollback`` or ``gates`` (none is configured).
        side: whether the limit is the least or the most allowed.
        limit: the threshold, in the figure's own unit.
        value: what was measured; None when it was not.
        passed: None when it can't be said.
        sentence: the same for a person.
    """

    gate: str
    side: Side
    limit: float | None
    value: float | None
    passed: bool | None
    sentence: str


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The gated figures of the file that ships, from ``metrics.json``; one that was not measured is absent."""
    shipped = dict(metrics.get("shipped", {}).get("onnx", {}))
    if measured(shipped.get("size_bytes")) is not None:
        shipped["size_kb"] = shipped["size_bytes"] / 1024
    return {name: value for name in FIGURES if (value := measured(shipped.get(name))) is not None}


def thresholds(found: Mapping[str, float], gates: Bounds) -> list[Reason]:
    """A reason for each side of each gate.

    Args:
        found: what was measured, by :func:`figures`.
        gates: the bounds.
    """
    return [_threshold(name, side, limit, found.get(name)) for name, side, limit in sides(gates)]


def none_configured() -> Reason:
    """Forgetting the gates blesses nothing, as in TFX."""
    sentence = "No gate is configured, so nothing is promoted: set registry.gates in params.yaml."
    return Reason("gates", "min", 1, 0, None, sentence)


def sides(bounds: Bounds) -> list[tuple[str, Side, float]]:
    """Each limit that is set, as figure, side and limit."""
    names: tuple[Side, Side] = ("min", "max")
    return [
        (figure, side, limit)
        for figure, bound in bounds.items()
        for side in names
        if (limit := bound.get(side)) is not None
    ]


def within(value: float, side: Side, limit: float) -> bool:
    """Whether a value keeps to a limit."""
    return value >= limit if side == "min" else value <= limit


def measured(value: Any) -> float | None:
    """The figure as a number; None for anything that no measurement gives."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def shown(value: float, other: float | None = None) -> str:
    """The value with four digits, or with as many as it takes to tell it from ``other``."""
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
    word, wanted = "minimum" if low else "maximum", f"{shown(limit)}{unit}"
    if value is None or math.isnan(limit):
        missing = "was not measured" if value is None else "can't be compared"
        return Reason(name, side, measured(limit), value, None, f"{label} {missing}, and the {word} is {wanted}.")
    passed = within(value, side, limit)
    verb = ("reaches" if low else "is within") if passed else ("is below" if low else "exceeds")
    sentence = f"{label} {shown(value, limit)}{unit} {verb} the {word} of {wanted}."
    return Reason(name, side, measured(limit), value, passed, sentence)
