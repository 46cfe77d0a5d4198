"""Whether a student may go into production: a pure function from figures to a decision with its reasons.

As in TFX, forgetting the gates blesses nothing: without a gate, or with a figure that was not measured, the status is
UNKNOWN and the model stays where it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from components.core.significance import mcnemar, paired_bootstrap

Status = Literal["UNKNOWN", "REJECTED", "VALIDATED"]

_LABELS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "worst_class_recall": "Worst class recall",
    "ece": "Calibration error (ECE)",
    "size_kb": "Size",
    "latency_ms_p95": "Latency p95",
    "params": "Parameters",
}
_UNITS = {"size_kb": " KB", "latency_ms_p95": " ms"}


@dataclass(frozen=True)
class Reason:
    """What one threshold says.

    Attributes:
        gate: the figure's name, ``champion``, ``rollback`` or ``gates`` (none is configured).
        side: whether the limit is the least or the most allowed.
        limit: the threshold, in the figure's own unit.
        value: what was measured; None when it was not.
        passed: None when it can't be said.
        sentence: the same for a person.
    """

    gate: str
    side: Literal["min", "max"]
    limit: float | None
    value: float | None
    passed: bool | None
    sentence: str


@dataclass(frozen=True)
class ChampionEvaluation:
    """The champion and its challenger, both scored now on the same ``n`` test images.

    ``difference`` is challenger - champion in accuracy, ``low`` and ``high`` its bootstrap interval, ``p_value``
    McNemar's; ``test_changed`` says that the champion was promoted on another test split.
    """

    version: int
    artifact_sha256: str
    test_changed: bool
    accuracy: float
    challenger_accuracy: float
    difference: float
    low: float
    high: float
    p_value: float
    n: int


@dataclass(frozen=True)
class Decision:
    """The verdict on one version."""

    status: Status
    promote: bool
    first: bool
    reasons: tuple[Reason, ...]
    champion: ChampionEvaluation | None


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The gated figures of the file that ships, from ``metrics.json``; one that was not measured is absent."""
    shipped = dict(metrics.get("shipped", {}).get("onnx", {}))
    if _measured(shipped.get("size_bytes")) is not None:
        shipped["size_kb"] = shipped["size_bytes"] / 1024
    return {name: value for name in _LABELS if (value := _measured(shipped.get(name))) is not None}


def compare(
    labels: npt.NDArray[np.int64],
    challenger: npt.NDArray[np.int64],
    champion: npt.NDArray[np.int64],
    champion_version: int,
    champion_sha256: str,
    test_changed: bool,
    resamples: int,
    seed: int,
) -> ChampionEvaluation:
    """Compare two models' predicted classes [N] on the same images."""
    right_a, right_b = challenger == labels, champion == labels
    interval = paired_bootstrap(right_a, right_b, resamples, seed)
    return ChampionEvaluation(
        version=champion_version,
        artifact_sha256=champion_sha256,
        test_changed=test_changed,
        accuracy=float(right_b.mean()),
        challenger_accuracy=float(right_a.mean()),
        difference=interval.difference,
        low=interval.low,
        high=interval.high,
        p_value=mcnemar(right_a, right_b),
        n=len(labels),
    )


def decide(
    metrics: Mapping[str, Any],
    gates: Mapping[str, Mapping[str, float]],
    champion: ChampionEvaluation | None,
    margin: float,
    rolled_back: str | None = None,
) -> Decision:
    """Decide on one version.

    Args:
        metrics: the content of ``metrics.json``; the gates look at the ONNX file's figures.
        gates: ``{figure: {"min": limit, "max": limit}}``, as in ``params.yaml``.
        champion: the fresh comparison with the model in production; None when there is none yet.
        margin: the accuracy that may be lost to the champion (0.01 = one point).
        rolled_back: who rolled this version back and when, if anyone did; it is then not promoted again by itself.

    Returns:
        UNKNOWN without a gate or when a gated figure was not measured, REJECTED when a threshold is missed, VALIDATED
        otherwise. A validated version is promoted unless the champion is the same file.
    """
    measured = figures(metrics)
    reasons = [
        _threshold(name, side, limit, measured.get(name))
        for name, bound in gates.items()
        for side, limit in bound.items()
        if limit is not None
    ]
    gated = bool(reasons)
    if not gated:
        sentence = "No gate is configured, so nothing is promoted: set registry.gates in params.yaml."
        reasons.append(Reason("gates", "min", 1, 0, None, sentence))
    same = champion is not None and champion.artifact_sha256 == metrics.get("artifact_sha256", {}).get("onnx")
    reasons.append(_first() if champion is None else _against(champion, margin, same))
    if rolled_back is not None:
        sentence = f"This version was rolled back {rolled_back}: only a person's `reflux promote` brings it back."
        reasons.append(Reason("rollback", "max", 0, 1, False, sentence))
    status: Status = "VALIDATED"
    if any(reason.passed is None for reason in reasons):
        status = "UNKNOWN"
    elif not all(reason.passed for reason in reasons):
        status = "REJECTED"
    return Decision(status, status == "VALIDATED" and not same, champion is None, tuple(reasons), champion)


def _measured(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _threshold(name: str, side: str, limit: float, value: float | None) -> Reason:
    label, unit = _LABELS.get(name, name), _UNITS.get(name, "")
    low = side == "min"
    word = "minimum" if low else "maximum"
    shown_limit = _shown(limit)
    if value is None or math.isnan(limit):
        missing = "was not measured" if value is None else "can't be compared"
        sentence = f"{label} {missing}, and the {word} is {shown_limit}{unit}."
        passed = None
    else:
        passed = value >= limit if low else value <= limit
        verb = ("reaches" if low else "is within") if passed else ("is below" if low else "exceeds")
        sentence = f"{label} {_shown(value, limit)}{unit} {verb} the {word} of {shown_limit}{unit}."
    return Reason(name, "min" if low else "max", _measured(limit), value, passed, sentence)


def _first() -> Reason:
    sentence = "No champion to compare with: this is the first model, judged by the gates alone."
    return Reason("champion", "min", None, None, True, sentence)


def _against(champion: ChampionEvaluation, margin: float, same: bool) -> Reason:
    if same:
        sentence = f"Version {champion.version}, the champion, is this very file: nothing to do."
        return Reason("champion", "min", -margin, 0.0, True, sentence)
    if not all(math.isfinite(x) for x in (champion.low, champion.difference, margin)):
        sentence = f"The comparison with the champion (version {champion.version}) has no result."
        return Reason("champion", "min", _measured(-margin), None, None, sentence)
    passed = champion.low > -margin
    sentence = (
        f"Against the champion (version {champion.version}) on {champion.n:,} test images: "
        f"{100 * champion.difference:+.2f} points of accuracy, 95% interval {100 * champion.low:+.2f} to "
        f"{100 * champion.high:+.2f}; {'not worse' if passed else 'it may be worse'} by the margin of "
        f"{100 * margin:g} points."
    )
    if champion.test_changed:
        sentence += " The champion was promoted on another test split; it was scored anew on this one."
    return Reason("champion", "min", -margin, champion.low, passed, sentence)


def _shown(value: float, other: float | None = None) -> str:
    """The value with four digits, or with as many as it takes to tell it from ``other``."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if other is None or value == other or float(text) != other:
            return text
    return repr(value)
