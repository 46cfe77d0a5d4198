"""The decision on a student: a pure function from figures to a verdict with its reasons."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from reflux.components.core.contract import UNTRAINED_CONTROL, not_distilled, ships
from reflux.components.core.params.registry import Registry
from reflux.components.core.significance import images_needed, margin_shown, optimism
from reflux.components.registry.policy import comparison as champions
from reflux.components.registry.policy import gates, slices
from reflux.components.registry.policy.comparison import Best, ChampionEvaluation
from reflux.components.registry.policy.gates import Bounds, Reason

Status = Literal["UNKNOWN", "REJECTED", "VALIDATED"]


@dataclass(frozen=True)
class Policy:
    """The rules for a promotion: the section ``registry`` of ``params.yaml``.

    Attributes:
        gates: the bounds on the shipped file's figures.
        slices: the bounds on its figures in each slice, by column.
        min_count: number of images below which a slice is reported but not gated.
        margin: the accuracy that may be lost to the champion (0.01 = one point).
        alpha: the p-value below which a higher accuracy counts as better.
        smaller: the factor by which a file must be smaller to count as smaller.
        faster: the factor in p95 latency by which it must be faster to count as faster.
        worse_than_control: what happens to a student that is significantly worse than its own control.
    """

    gates: Bounds
    slices: Mapping[str, Bounds]
    min_count: int
    margin: float
    alpha: float
    smaller: float
    faster: float
    worse_than_control: Literal["refuse", "allow"]

    @classmethod
    def of(cls, rules: Registry) -> "Policy":
        """The policy that the params state."""
        values = rules.model_dump(exclude_none=True)
        parts, others = values["slices"], {"worse_than_control": values["worse_than_control"], **values["champion"]}
        return cls(values["gates"], parts["gates"], parts["min_count"], **others)


@dataclass(frozen=True)
class Decision:
    """The verdict on one version.

    Attributes:
        promote: whether the version is to become the champion.
        first: whether there was no champion to compare with.
        champion: the comparison with the champion, if there is one.
        uses: decisions that the test split had served before; None if unknown.
        notes: warnings for people, which do not change the status.
    """

    status: Status
    promote: bool
    first: bool
    reasons: tuple[Reason, ...]
    champion: ChampionEvaluation | None
    uses: int | None = None
    notes: tuple[str, ...] = ()

    def with_smoke_test(self, test: Reason) -> "Decision":
        """The decision after the smoke test: a version that fails it is not promoted."""
        status: Status = self.status if test.passed else "REJECTED"
        return replace(self, status=status, promote=self.promote and test.passed is True, reasons=(*self.reasons, test))

    @property
    def sentences(self) -> tuple[str, ...]:
        """Reasons and notes as sentences."""
        return (*(reason.sentence for reason in self.reasons), *self.notes)


def decide(
    metrics: Mapping[str, Any],
    policy: Policy,
    champion: ChampionEvaluation | None,
    uses: int | None = None,
    rolled_back: str | None = None,
    best: Best | None = None,
    reports: gates.Devices = gates.NO_DEVICES,
) -> Decision:
    """Decide on one version.

    Args:
        metrics: the content of ``metrics.json``; the gates look at the figures of the file that ships.
        policy: the rules.
        champion: the fresh comparison with the model in production; None if there is none yet.
        uses: decisions that this test split has served before; None if unknown.
        rolled_back: when and by whom this version was rolled back, if it was; it is then not promoted automatically.
        best: the most accurate champion that was measured on this test split; None if there was none.
        reports: of the devices that the gates name.

    Returns:
        UNKNOWN without a gate or if a gated figure was not measured, REJECTED if a limit is missed, VALIDATED
        otherwise. A validated version is promoted unless the champion is the same file. The first model is judged by
        the gates alone; a later one must also be no worse than the champion, and better, smaller or faster.
    """
    reasons = gates.thresholds(metrics, policy.gates, reports)
    reasons += slices.reasons(metrics.get("slices", {}), policy.slices, policy.min_count)
    if not reasons:
        reasons.append(gates.none_configured())
    same = champion is not None and champion.artifact_sha256 == metrics.get("artifact_sha256", {}).get(ships(metrics))
    worse = _worse_than_control(metrics, policy.alpha)
    if worse and policy.worse_than_control == "refuse":
        reasons.append(Reason("control", "min", 0.0, metrics["gain"]["accuracy"], False, worse))
    reasons += _against(champion, same, policy)
    if rolled_back is not None:
        sentence = f"This version was rolled back {rolled_back}: only a person's `reflux promote` brings it back."
        reasons.append(Reason("rollback", "max", 0, 1, False, sentence))
    accuracy, n = gates.gated_figures(metrics).get("accuracy"), gates.images(metrics)
    notes: tuple[str, ...] = (worse,) if worse and policy.worse_than_control == "allow" else ()
    notes += () if worse else _no_gain(metrics)
    notes += (UNTRAINED_CONTROL,) if metrics.get("control_untrained") else ()
    notes += _reuse(uses, accuracy, n, champion, policy.margin)
    notes += _too_few(champion.n if champion else n, policy.margin)
    notes += _crept(accuracy, champion, best, policy)
    status: Status = "VALIDATED"
    if any(reason.passed is None for reason in reasons):
        status = "UNKNOWN"
    elif not all(reason.passed for reason in reasons):
        status = "REJECTED"
    return Decision(
        status=status,
        promote=status == "VALIDATED" and not same,
        first=champion is None,
        reasons=tuple(reasons),
        champion=champion,
        uses=uses,
        notes=notes,
    )


def _against(champion: ChampionEvaluation | None, same: bool, policy: Policy) -> list[Reason]:
    if champion is None:
        sentence = "No champion to compare with: this is the first model, judged by the gates alone."
        return [Reason("champion", "min", None, None, True, sentence)]
    if same:
        sentence = f"Version {champion.version}, the champion, is this very file: nothing to do."
        return [Reason("champion", "min", None, 0.0, True, sentence)]
    return [
        champions.not_worse(champion, policy.margin),
        champions.advantage(champion, policy.margin, policy.alpha, policy.smaller, policy.faster),
    ]


def _worse_than_control(metrics: Mapping[str, Any], alpha: float) -> str:
    """Say that the student is significantly worse than its own control; empty if it is not."""
    gain = metrics.get("gain", {})
    difference, p_value = gates.as_number(gain.get("accuracy")), gates.as_number(gain.get("p_value"))
    if difference is None or p_value is None or not (difference < 0 and p_value < alpha):
        return ""
    return (
        f"Distillation did not pay here: the student is {-100 * difference:.2f} points worse than its own control, the "
        f"same network without a teacher (McNemar p = {p_value:.2g}, below {alpha:g}).{_helps(metrics)} "
        "registry.worse_than_control=allow promotes it all the same."
    )


def _no_gain(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Warn if what distillation brought may be nothing, or if it is the control that ships."""
    helps = _helps(metrics)
    if instead := not_distilled(metrics):
        return (f"{instead}{helps}",)
    if not helps:
        return ()
    return (f"Distillation brought no measurable gain here: the 95% interval of its gain is not above 0.{helps}",)


def _helps(metrics: Mapping[str, Any]) -> str:
    """What evaluation says for this case; it says nothing where distillation paid, and older releases never do."""
    remedy = metrics.get("remedy")
    return f" What usually helps: {remedy}." if remedy else ""


def _reuse(
    uses: int | None, accuracy: float | None, n: int | None, champion: ChampionEvaluation | None, margin: float
) -> tuple[str, ...]:
    """Warn once the best of all models judged on this test split is expected to owe more than the margin to chance.

    A warning, because the remedies in the literature cost what a promotion needs most. Thresholdout (Dwork et al. 2015)
    answers with noise and from a budget: the same file could be promoted today and refused tomorrow, and nobody could
    check the decision. The Ladder (Blum and Hardt 2015) says no more than that a new best was reached, where the model
    card publishes every figure. Both protect against someone who fits the test split through its answers, which no
    stage does: params are chosen on validation data. What remains is the luck of the best of k, which is computed for
    models that differ from each other as challenger and champion do; without a champion, for models that have nothing
    in common, which is more. The remedy, fresh images, is up to people.
    """
    if uses is None or accuracy is None or not n or not 0 <= accuracy <= 1:
        return ()
    disagreement = champion.disagreement if champion else None
    luck = optimism(2 * accuracy * (1 - accuracy) if disagreement is None else disagreement, n, uses + 1)
    if not luck > margin:
        return ()
    return (
        f"This test split has served {uses:,} decisions before: by chance alone the best of {uses + 1:,} equal models "
        f"looks {100 * luck:.2f} points better than it is (expected value), more than the margin of {100 * margin:g} "
        "points. Give ingest a fresh test split.",
    )


def _too_few(n: int | None, margin: float) -> tuple[str, ...]:
    """Warn if a student that does as well as the champion on so few test images can't replace it."""
    if not n or margin < champions.LEAST_MARGIN or n >= (needed := images_needed(margin)):
        return ()
    return (
        f"On {n:,} test images a student with as many right answers as the champion can't replace it, however small or "
        f"fast it is: excluding a loss of {100 * margin:g} points takes {needed:,} images. Add test images, or set "
        f"registry.champion.margin above {math.ceil(1e4 * margin_shown(n)) / 1e4:g}.",
    )


def _crept(
    accuracy: float | None, champion: ChampionEvaluation | None, best: Best | None, policy: Policy
) -> tuple[str, ...]:
    """Warn once the losses of several promotions, each within the margin, have added up to more than it.

    A comparison with the last champion alone allows a descent in small steps, which clinical trials call biocreep
    (D'Agostino, Massaro and Sullivan 2003): a smaller or faster student may lose up to the margin, and the next one as
    much again. This compares with the best champion so far, and warns. It does not refuse, for three reasons. How low
    production may sink is a limit of its own, the gate on accuracy, which holds however many steps there were. The
    highest of many measured accuracies is also the luckiest, so a limit derived from it would refuse students that are
    no worse than any champion was, and a paired test needs that champion's file, which may be gone. And every step was
    a trade of accuracy for size or time that the policy calls worth it: whether their sum is worth it, only people can
    say, here or by ``reflux rollback --to``.
    """
    if accuracy is None or best is None or (champion is not None and champion.version == best.version):
        return ()
    if not best.accuracy - accuracy > policy.margin:
        return ()
    floor = gates.as_number(policy.gates.get("accuracy", {}).get("min"))
    bound = "no gate on accuracy bounds it" if floor is None else f"the gate on accuracy alone, {floor:g}, bounds it"
    return (
        f"This version is {100 * (best.accuracy - accuracy):.2f} points below version {best.version}, the most "
        f"accurate champion on this test split: losses within the margin of {100 * policy.margin:g} points have added "
        f"up to more than it, and {bound}.",
    )
