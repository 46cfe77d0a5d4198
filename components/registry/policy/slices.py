"""Gates on parts of the test split: every class, and every value of a column of the manifest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reflux.components.core.significance import share_bound, too_low
from reflux.components.registry.policy.gates import (
    Bounds,
    Reason,
    Side,
    as_number,
    format_value,
    in_percent,
    luck,
    sides,
    within,
)

_NAMED = 3  # slices named in a sentence; a dataset may have hundreds
_ALPHA = 0.05  # the p-value below which a miss is more than chance, after correction for the number of slices


@dataclass(frozen=True)
class _Slice:
    """One value of a column, with its number of test images, its figure, and the figure's bound if one is asked for."""

    name: str
    n: int
    value: float | None
    bound: float | None = None

    @property
    def compared(self) -> float | None:
        """What must keep to the limit."""
        return self.value if self.bound is None else self.bound

    def __str__(self) -> str:
        value = "unknown" if self.value is None else format_value(self.value)
        bound = "" if self.bound is None else f", bound {format_value(self.bound)}"
        return f"{self.name} {value} (n = {self.n:,}{bound})"


def reasons(slices: Mapping[str, Any], gates: Mapping[str, Bounds], min_count: int) -> list[Reason]:
    """A reason for each side of each gate on a column; its sentence names the worst slices.

    With a confidence, each slice's one-sided bound must keep to the limit. The bounds are Clopper and Pearson's at a
    level that Bonferroni's inequality corrects for the number of slices, 1 - (1 - confidence) / m: all m of them hold
    together with that confidence. Without one, a slice's figure is compared as it was measured, and the sentence says
    of a miss if it may be chance, again corrected for the number of slices.

    Args:
        slices: ``slices`` of ``metrics.json``: ``{column: {value: {"n": images, "accuracy": figure}}}``.
        gates: ``{column: {figure: {"min": limit, "max": limit, "confidence": share}}}``; every slice of the column must
            keep to the limit.
        min_count: a slice with fewer images is named but not gated, because its figure is mostly chance: on 30 images
            a model that is right in 80 % of cases has a measured accuracy between 0.66 and 0.94 (95 %).

    Returns:
        ``passed`` is None if the column was not measured, if a slice that is large enough has no figure, or if none is
        large enough: a gate that compared nothing must not pass.
    """
    return [
        _reason(column, slices.get(column) or {}, figure, side, limit, bounds[figure].get("confidence"), min_count)
        for column, bounds in gates.items()
        for figure, side, limit in sides(bounds)
    ]


def _reason(
    column: str,
    slices: Mapping[str, Any],
    figure: str,
    side: Side,
    limit: float,
    confidence: float | None,
    min_count: int,
) -> Reason:
    gate, word = f"slices.{column}.{figure}", "minimum" if side == "min" else "maximum"
    parts = [_Slice(name, int(part["n"]), as_number(part.get(figure))) for name, part in slices.items()]
    gated = [part for part in parts if part.n >= min_count]
    if confidence is not None:
        gated = [_bounded(part, side, confidence, len(gated)) for part in gated]
    gated.sort(key=lambda part: (_from_worst(part.compared, side), part.name))
    small = sorted((p for p in parts if p.n < min_count), key=lambda part: (_from_worst(part.value, side), part.name))
    limit_text = f"the {word} is {format_value(limit)}"
    if not gated:
        what = f"no slice of it has {min_count:,} test images" if parts else "the column was not measured"
        sentence = f"The {figure} by {column} is unknown: {what}, and {limit_text}."
        return Reason(gate, side, as_number(limit), None, None, sentence)
    worst = gated[0].compared
    if worst is None or math.isnan(limit):
        sentence = f"The {figure} by {column} is unknown: {_listed(gated)}, and {limit_text}."
        return Reason(gate, side, as_number(limit), None, None, sentence)
    missed = [part for part in gated if part.compared is not None and not within(part.compared, side, limit)]
    sentence = _sentence(column, figure, side, limit, confidence, gated, missed)
    if small:
        sentence += f" Not gated, for fewer than {min_count:,} images: {_listed(small)}."
    return Reason(gate, side, as_number(limit), worst, not missed, sentence)


def _sentence(
    column: str,
    figure: str,
    side: Side,
    limit: float,
    confidence: float | None,
    gated: Sequence[_Slice],
    missed: Sequence[_Slice],
) -> str:
    low, wanted = side == "min", f"the {'minimum' if side == 'min' else 'maximum'} of {format_value(limit)}"
    surely = "" if confidence is None else f", with {in_percent(confidence)} confidence for all of them together,"
    if missed:
        verb = "is below" if low else "exceeds"
        sentence = (
            f"The {figure} of {len(missed):,} of {len(gated):,} slices by {column}{surely} {verb} {wanted}: "
            f"{_listed(missed)}."
        )
        return sentence + (_by_chance(gated, limit) if low and confidence is None else "")
    verb = "reaches" if low else "is within"
    sentence = (
        f"The {figure} of each of {len(gated):,} slices by {column}{surely} {verb} {wanted}; "
        f"the worst: {_listed(gated, rest=False)}."
    )
    if low and confidence is None and 0 < limit <= 1:
        fewest = min(part.n for part in gated)
        sentence += f" On {fewest:,} images, the fewest of a slice, {luck(fewest, limit, None, 'slice')}."
    return sentence


def _by_chance(gated: Sequence[_Slice], limit: float) -> str:
    """Say of a missed minimum whether the worst of so many slices falls as low by chance."""
    counts = [(round(part.value * part.n), part.n) for part in gated if part.value is not None and part.value <= 1]
    if not counts or not 0 <= limit <= 1 or (p_value := too_low(counts, limit)) < _ALPHA:
        return ""
    of = "" if len(counts) == 1 else f", corrected for {len(counts):,} slices"
    return f" That may be chance (p = {p_value:.2g}{of})."


def _bounded(part: _Slice, side: Side, confidence: float, together: int) -> _Slice:
    """The slice with its bound at a confidence for so many slices together."""
    if part.value is None or not 0 <= part.value <= 1:
        return replace(part, value=None)
    level = 1 - (1 - confidence) / together
    bound = share_bound(round(part.value * part.n), part.n, "lower" if side == "min" else "upper", level)
    return replace(part, bound=bound)


def _from_worst(value: float | None, side: Side) -> float:
    """Sort key: unknown figures first, then the worst."""
    if value is None:
        return -math.inf
    return value if side == "min" else -value


def _listed(parts: Sequence[_Slice], rest: bool = True) -> str:
    named = ", ".join(str(part) for part in parts[:_NAMED])
    return named + (f" and {len(parts) - _NAMED:,} more" if rest and len(parts) > _NAMED else "")
