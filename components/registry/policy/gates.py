"""The absolute gates: limits on the shipped file's figures, whatever the champion's are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reflux.components.core.contract import FIGURES, shipped
from reflux.components.core.significance import chance_to_reach, score_bound, share_bound

Side = Literal["min", "max"]
# {figure: {"min": limit, "max": limit, "confidence": share, "device": name}}
Bounds = Mapping[str, Mapping[str, Any]]

_JUST_BELOW = 0.005  # a model this much below a minimum is the example of what chance lets through


@dataclass(frozen=True)
class Reason:
    """The result of one check of the policy.

    Attributes:
        gate: the figure's name, ``slices.<column>.<figure>``, ``champion`` (not worse), ``advantage`` (better, smaller
            or faster), ``smoke``, ``rollback`` or ``gates`` (none is configured).
        limit: the threshold, in the figure's own unit.
        value: what was compared: the measured value or, where the gate has a confidence, its bound; None if it was not
            measured.
        passed: None if that is unknown.
        sentence: the same for people.
    """

    gate: str
    side: Side
    limit: float | None
    value: float | None
    passed: bool | None
    sentence: str


@dataclass(frozen=True)
class DeviceReport:
    """What a device's newest report says of the file of a version.

    Attributes:
        version: whose file it is.
        latency_ms_p95: of one image on one thread; None if there is no report of this device and this file.
        reproduced: the share of the images on which it answers there as it does here.
        origin: of the report, for people.
        run_id: of the report in MLflow.
    """

    version: int
    latency_ms_p95: float | None = None
    reproduced: float = 1.0
    origin: str = ""
    run_id: str | None = None


Devices = Mapping[str, DeviceReport]  # by the devices' names
NO_DEVICES: Devices = {}


def devices(gates: Bounds) -> list[str]:
    """The devices whose reports the gates read."""
    return list(dict.fromkeys(bound["device"] for bound in gates.values() if bound.get("device")))


def gated_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the shipped file that gates can limit, from ``metrics.json``; unmeasured ones are absent."""
    own = {**shipped(metrics), "gain": metrics.get("gain", {}).get("accuracy")}
    if as_number(own.get("size_bytes")) is not None:
        own["size_kb"] = own["size_bytes"] / 1024
    return {name: value for name in FIGURES if (value := as_number(own.get(name))) is not None}


def thresholds(metrics: Mapping[str, Any], gates: Bounds, reports: Devices = NO_DEVICES) -> list[Reason]:
    """A reason for each side of each gate on the figures in ``metrics.json``, or in a device's report."""
    figures = gated_figures(metrics)
    return [
        _on_device(name, side, limit, device, reports.get(device))
        if (device := gates[name].get("device"))
        else _threshold(name, side, limit, figures.get(name), gates[name].get("confidence"), metrics)
        for name, side, limit in sides(gates)
    ]


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


def in_percent(share: float) -> str:
    """A share in percent, with as many digits as it needs: ``95 %``, ``99.9 %``."""
    return f"{100 * share:.4g} %"


def luck(n: int, minimum: float, confidence: float | None, what: str = "model") -> str:
    """Say how often chance lets a model pass that is just below a minimum on ``n`` test images."""
    below = max(minimum - _JUST_BELOW, 0.0)
    chance = chance_to_reach(below, n, minimum, confidence)
    share = f"{100 * chance:.2g} %" if chance >= 1e-4 else "less than 0.01 %"
    return f"a {what} that is truly at {format_value(below, minimum)} passes in {share} of draws"


def _threshold(
    name: str, side: Side, limit: float, value: float | None, confidence: float | None, metrics: Mapping[str, Any]
) -> Reason:
    figure = FIGURES[name]
    label, unit = figure.label, f" {figure.unit}" if figure.unit else ""
    low = side == "min"
    word, wanted = "minimum" if low else "maximum", f"{format_value(limit)}{unit}"
    if value is None or math.isnan(limit):
        missing = "was not measured" if value is None else "can't be compared"
        return Reason(name, side, as_number(limit), value, None, f"{label} {missing}, and the {word} is {wanted}.")
    shown, n = f"{label} {format_value(value, limit)}{unit}", images(metrics)
    if confidence is not None:
        bound = _bound(name, side, value, confidence, metrics)
        if bound is None:
            sentence = f"{shown} has no known bound at {in_percent(confidence)}, and the {word} is {wanted}."
            return Reason(name, side, as_number(limit), None, None, sentence)
        direction = "at least" if low else "at most"
        shown += f", with {in_percent(confidence)} confidence {direction} {format_value(bound, limit)},"
        value = bound
    passed = within(value, side, limit)
    verb = ("reaches" if low else "is within") if passed else ("is below" if low else "exceeds")
    sentence = f"{shown} {verb} the {word} of {wanted}."
    if passed and low and n and figure.share and 0 < limit <= 1:
        sentence += f" On {n:,} test images {luck(n, limit, confidence)}."
    return Reason(name, side, as_number(limit), value, passed, sentence)


def _on_device(name: str, side: Side, limit: float, device: str, report: DeviceReport | None) -> Reason:
    figure = FIGURES[name]
    label, unit, word = f"{figure.label} on {device}", figure.unit, "minimum" if side == "min" else "maximum"
    value = as_number(report.latency_ms_p95) if report else None
    if report is None or value is None:
        sentence = f"{label} is not known, and the {word} is {format_value(limit)} {unit}: this waits for a report of "
        sentence += f"{device}."
        if report is not None:
            sentence += (
                f" `reflux bench {report.version} --export DIR` makes the folder to run there, `reflux bench --import "
                f"REPORT.json` takes its report, and `reflux promote {report.version}` judges again."
            )
        return Reason(name, side, limit, None, None, sentence)
    passed = within(value, side, limit)
    verb = ("reaches" if side == "min" else "is within") if passed else ("is below" if side == "min" else "exceeds")
    sentence = f"{label} {format_value(value, limit)} {unit} {verb} the {word} of {format_value(limit)} {unit}"
    sentence += f" ({report.origin})."
    if report.reproduced < 1:
        sentence += f" There it answers {in_percent(report.reproduced)} of the images as it does here."
    return Reason(name, side, limit, value, passed, sentence)


def images(metrics: Mapping[str, Any]) -> int | None:
    """The number of test images; None if it is not known."""
    n = as_number(metrics.get("test", {}).get("n"))
    return int(n) if n else None


def _bound(name: str, side: Side, value: float, confidence: float, metrics: Mapping[str, Any]) -> float | None:
    """The one-sided bound of a figure at a confidence; None if it can't be known."""
    n, gain = images(metrics), metrics.get("gain", {})
    if n is None:
        return None
    if name == "gain":
        wins, losses = gain.get("wins"), gain.get("losses")
        if wins is None or losses is None:
            return None
        # The score bound is one end of a two-sided interval; the other is that of the mirrored difference.
        both = 2 * confidence - 1
        return score_bound(wins, losses, n, both) if side == "min" else -score_bound(losses, wins, n, both)
    if not FIGURES[name].share or not 0 <= value <= 1:
        return None
    return share_bound(round(value * n), n, "lower" if side == "min" else "upper", confidence)
