"""Gates on parts of the test split: every class, and every value of a column of the manifest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.registry.policy.gates import Bounds, Reason, Side, as_number, format_value, sides, within

_NAMED = 3  # slices named in a sentence; a dataset may have hundreds


@dataclass(frozen=True)
class _Slice:
    """One value of a column, with its number of test images and its figure."""

    name: str
    n: int
    value: float | None

    def __str__(self) -> str:
        return f"{self.name} {'unknown' if self.value is None else format_value(self.value)} (n = {self.n:,})"


def reasons(slices: Mapping[str, Any], gates: Mapping[str, Bounds], min_count: int) -> list[Reason]:
    """A reason for each side of each gate on a column; its sentence names the worst slices.

    Args:
        slices: ``slices`` of ``metrics.json``: ``{column: {value: {"n": images, "accuracy": figure}}}``.
        gates: ``{column: {figure: {"min": limit, "max": limit}}}``; every slice of the column must keep to the limit.
        min_count: a slice with fewer images is named but not gated, because its figure is mostly chance: on 30 images
            a model that is right in 80 % of cases has a measured accuracy between 0.66 and 0.94 (95 %).

    Returns:
        ``passed`` is None if the column was not measured, if a slice that is large enough has no figure, or if none is
        large enough: a gate that compared nothing must not pass.
    """
    return [
        _reason(column, slices.get(column) or {}, figure, side, limit, min_count)
        for column, bounds in gates.items()
        for figure, side, limit in sides(bounds)
    ]


def _reason(column: str, slices: Mapping[str, Any], figure: str, side: Side, limit: float, min_count: int) -> Reason:
    gate, word = f"slices.{column}.{figure}", "minimum" if side == "min" else "maximum"
    parts = [_Slice(name, int(part["n"]), as_number(part.get(figure))) for name, part in slices.items()]
    parts.sort(key=lambda part: (_from_worst(part, side), part.name))
    gated = [part for part in parts if part.n >= min_count]
    small = [part for part in parts if part.n < min_count]
    limit_text = f"the {word} is {format_value(limit)}"
    if not gated:
        what = f"no slice of it has {min_count:,} test images" if parts else "the column was not measured"
        sentence = f"The {figure} by {column} is unknown: {what}, and {limit_text}."
        return Reason(gate, side, as_number(limit), None, None, sentence)
    worst = gated[0].value
    if worst is None or math.isnan(limit):
        sentence = f"The {figure} by {column} is unknown: {_listed(gated)}, and {limit_text}."
        return Reason(gate, side, as_number(limit), None, None, sentence)
    missed = [part for part in gated if part.value is not None and not within(part.value, side, limit)]
    if missed:
        verb = "is below" if side == "min" else "exceeds"
        sentence = (
            f"The {figure} of {len(missed):,} of {len(gated):,} slices by {column} {verb} the {word} of "
            f"{format_value(limit)}: {_listed(missed)}."
        )
    else:
        verb = "reaches" if side == "min" else "is within"
        sentence = (
            f"The {figure} of each of {len(gated):,} slices by {column} {verb} the {word} of {format_value(limit)}; "
            f"the worst: {_listed(gated, rest=False)}."
        )
    if small:
        sentence += f" Not gated, for fewer than {min_count:,} images: {_listed(small)}."
    return Reason(gate, side, as_number(limit), worst, not missed, sentence)


def _from_worst(part: _Slice, side: Side) -> float:
    """Sort key: unknown figures first, then the worst."""
    if part.value is None:
        return -math.inf
    return part.value if side == "min" else -part.value


def _listed(parts: list[_Slice], rest: bool = True) -> str:
    named = ", ".join(str(part) for part in parts[:_NAMED])
    return named + (f" and {len(parts) - _NAMED:,} more" if rest and len(parts) > _NAMED else "")
