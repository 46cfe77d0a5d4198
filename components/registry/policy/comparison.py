"""The comparison with the champion: a challenger must be no worse, and better, smaller or faster."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reflux.components.core.significance import images_needed, mcnemar, paired_bootstrap, paired_score_bound
from reflux.components.registry.policy.gates import Reason, as_number, format_value

LEAST_MARGIN = 1e-6  # below it no number of images is enough

if TYPE_CHECKING:
    from reflux.components.core.export.latency import SideBySide


@dataclass(frozen=True)
class Measured:
    """A model's file as scored now: its hash, its size, and its predicted class for each test image [N]."""

    sha256: str
    size_bytes: int
    predicted: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Best:
    """The champion with the highest accuracy that was measured on the present test split."""

    version: int
    accuracy: float


@dataclass(frozen=True)
class ChampionEvaluation:
    """The champion and its challenger, both measured now on the same ``n`` test images and the same machine.

    What is not named after the challenger is the champion's.

    Attributes:
        test_changed: whether the champion was promoted on another test split.
        difference: challenger - champion in accuracy (0.01 = one point).
        low: lower bound of the difference: the lower of the paired bootstrap's and the score bound.
        high: the upper end of the bootstrap interval (95 %).
        p_value: McNemar's, two-sided.
        latency_ms_p95: None if the files are the same.
        faster: lower bound of the factor by which the challenger is faster, see
            :func:`reflux.components.core.export.latency.side_by_side`.
        disagreement: the share of the images that just one of the two gets right; None in older records.
        left_out: further test images, which were left out because the champion was trained on them; None if the images
            that it was trained on are not known.
    """

    version: int
    artifact_sha256: str
    test_changed: bool
    n: int
    accuracy: float
    challenger_accuracy: float
    difference: float
    low: float
    high: float
    p_value: float
    size_bytes: int
    challenger_size_bytes: int
    latency_ms_p95: float | None
    challenger_latency_ms_p95: float | None
    faster: float | None
    disagreement: float | None = None
    left_out: int | None = None

    @property
    def smaller(self) -> float | None:
        """The factor by which the challenger's file is smaller."""
        return as_number(self.size_bytes / self.challenger_size_bytes) if self.challenger_size_bytes else None


def compare(
    labels: npt.NDArray[np.int64],
    challenger: Measured,
    champion: Measured,
    timed: "SideBySide | None",
    champion_version: int,
    test_changed: bool,
    resamples: int,
    seed: int,
    left_out: int | None = None,
) -> ChampionEvaluation:
    """Compare two files on the images with these labels [N]; ``timed`` has the challenger first, None for equal ones.

    The percentile bootstrap alone is too confident when the models differ on few images: without any loss among 200
    images its interval has no width, and a student that truly loses one image in 100 would pass a margin of one point
    13 times in 100. Tango's score bound takes the variance at the margin itself and keeps its level there
    (``benchmarks/promotion.py`` measures both). With many such images the two agree up to the luck of the resamples: on
    10,000 images the bootstrap alone, with 2,000 resamples of one seed, errs in 3.2 % of cases, the lower of the two in
    2.4 %.
    """
    right_a, right_b = challenger.predicted == labels, champion.predicted == labels
    interval = paired_bootstrap(right_a, right_b, resamples, seed)
    return ChampionEvaluation(
        version=champion_version,
        artifact_sha256=champion.sha256,
        test_changed=test_changed,
        n=len(labels),
        accuracy=float(right_b.mean()),
        challenger_accuracy=float(right_a.mean()),
        difference=interval.difference,
        low=min(interval.low, paired_score_bound(right_a, right_b)),
        high=interval.high,
        p_value=mcnemar(right_a, right_b),
        size_bytes=champion.size_bytes,
        challenger_size_bytes=challenger.size_bytes,
        latency_ms_p95=timed.second_ms_p95 if timed else None,
        challenger_latency_ms_p95=timed.first_ms_p95 if timed else None,
        faster=timed.faster if timed else None,
        disagreement=float((right_a != right_b).mean()),
        left_out=left_out,
    )


def not_worse(comparison: ChampionEvaluation, margin: float) -> Reason:
    """Non-inferiority: the challenger must lose less than the margin, with 97.5 % certainty."""
    if not all(math.isfinite(x) for x in (comparison.low, comparison.difference, margin)):
        sentence = f"The comparison with the champion (version {comparison.version}) has no result."
        return Reason("champion", "min", as_number(-margin), None, None, sentence)
    passed = comparison.low > -margin
    sentence = (
        f"Against the champion (version {comparison.version}) on {comparison.n:,} test images: "
        f"{100 * comparison.difference:+.2f} points of accuracy, 95% interval {100 * comparison.low:+.2f} to "
        f"{100 * comparison.high:+.2f}; {'not worse' if passed else 'it may be worse'} by the margin of "
        f"{100 * margin:g} points."
    )
    if not passed:
        sentence += _too_few(comparison, margin)
    return Reason("champion", "min", -margin, comparison.low, passed, sentence + _images_of(comparison))


def _too_few(comparison: ChampionEvaluation, margin: float) -> str:
    """Say how many images it takes, if equal models that differ as these do could not pass on these either."""
    differing = comparison.disagreement or 0.0
    if margin < LEAST_MARGIN or comparison.n >= (needed := images_needed(margin, differing)):
        return ""
    alike = f" that differ on {100 * differing:.2g} % of the images" if differing else ""
    return f" So few images can't show it even of equal models{alike}: it takes {needed:,}."


def _images_of(comparison: ChampionEvaluation) -> str:
    """Say which images the two were compared on, where that is not simply the test split of both."""
    sentence = ""
    if comparison.test_changed:
        sentence += " The champion was promoted on another test split; it was scored again on this one."
    if comparison.left_out:
        sentence += f" {comparison.left_out:,} test images that the champion was trained on were left out."
    if comparison.left_out is None and comparison.test_changed:
        sentence += (
            " Whether it was trained on some of these images is not known, as an older release registered it; if it "
            "was, its accuracy is too high."
        )
    return sentence


def advantage(comparison: ChampionEvaluation, margin: float, alpha: float, smaller: float, faster: float) -> Reason:
    """Superiority: a reason to replace what works is to be better, or smaller or faster by a factor.

    The limits are those of the policy; the margin affects only the wording.
    """
    p_value = f"McNemar p = {_text(comparison.p_value, alpha)}"
    size = f"{_text(comparison.smaller, smaller)} times"
    latency = f"at least {_text(comparison.faster, faster)} times"
    routes = [
        (_better(comparison, alpha), "better", p_value, f"below {alpha:g}"),
        (_reaches(comparison.smaller, smaller), "smaller", size, f"{smaller:g}"),
        (_reaches(comparison.faster, faster), "faster", latency, f"{faster:g}"),
    ]
    won = " and ".join(f"{word} ({figure})" for passed, word, figure, _ in routes if passed)
    if won:
        return Reason("advantage", "min", None, None, True, f"It is {won} than version {comparison.version}.")
    none = " nor ".join(f"{word} ({figure}, not {limit})" for _, word, figure, limit in routes)
    unknown = any(passed is None for passed, *_ in routes)
    sentence = (
        f"{'Not worse, but neither' if comparison.low > -margin else 'Neither'} {none} "
        f"than version {comparison.version}: "
        f"{'a reason to replace it is not known' if unknown else 'there is no reason to replace it'}."
    )
    return Reason("advantage", "min", None, None, None if unknown else False, sentence)


def _better(comparison: ChampionEvaluation, alpha: float) -> bool | None:
    if not (math.isfinite(comparison.p_value) and math.isfinite(comparison.difference)):
        return None
    return comparison.p_value < alpha and comparison.difference > 0


def _reaches(value: float | None, factor: float) -> bool | None:
    number = as_number(value)
    return None if number is None or math.isnan(factor) else number >= factor


def _text(value: float | None, limit: float) -> str:
    number = as_number(value)
    return "unknown" if number is None else format_value(number, limit)
