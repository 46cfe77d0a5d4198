"""Whether a student may go into production: a pure function from figures to a decision with its reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from components.core.params.sections import Registry
from components.core.significance import optimism
from components.registry.policy import comparison as champions
from components.registry.policy import gates, slices
from components.registry.policy.comparison import Best, ChampionEvaluation
from components.registry.policy.gates import Bounds, Reason

Status = Literal["UNKNOWN", "REJECTED", "VALIDATED"]


@dataclass(frozen=True)
class Policy:
    """What a version is judged by: the section ``registry`` of ``params.yaml``.

    Attributes:
        gates: the bounds on the shipped file's figures.
        slices: the bounds on its figures in each slice, by column.
        min_count: images below which a slice is reported, not gated.
        margin: the accuracy that may be lost to the champion (0.01 = one point).
        alpha: the p-value below which a higher accuracy counts as better.
        smaller: how many times smaller the file must be to count as smaller.
        faster: how many times faster, in p95 latency, to count as faster.
    """

    gates: Bounds
    slices: Mapping[str, Bounds]
    min_count: int
    margin: float
    alpha: float
    smaller: float
    faster: float

    @classmethod
    def of(cls, rules: Registry) -> "Policy":
        """The policy that the params state."""
        stated = rules.model_dump(exclude_none=True)
        return cls(stated["gates"], stated["slices"]["gates"], stated["slices"]["min_count"], **stated["champion"])


@dataclass(frozen=True)
class Decision:
    """The verdict on one version.

    Attributes:
        status: UNKNOWN, REJECTED or VALIDATED.
        promote: whether it is to become the champion.
        first: whether there was no champion to compare with.
        reasons: what each threshold says.
        champion: the comparison with the champion, if there is one.
        uses: decisions that the test split had served before; None when that is not known.
        notes: what a person should know besides, and what changes no status.
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
        """Reasons and notes as a person reads them."""
        return (*(reason.sentence for reason in self.reasons), *self.notes)


def decide(
    metrics: Mapping[str, Any],
    policy: Policy,
    champion: ChampionEvaluation | None,
    uses: int | None = None,
    rolled_back: str | None = None,
    best: Best | None = None,
) -> Decision:
    """Decide on one version.

    Args:
        metrics: the content of ``metrics.json``; the gates look at the ONNX file's figures.
        policy: what it is judged by.
        champion: the fresh comparison with the model in production; None when there is none yet.
        uses: decisions that this test split has served before; None when that is not known.
        rolled_back: who rolled this version back and when, if anyone did; it is then not promoted again by itself.
        best: the most accurate champion that this test split has seen; None when it has seen none.

    Returns:
        UNKNOWN without a gate or when a gated figure was not measured, REJECTED when a threshold is missed, VALIDATED
        otherwise. A validated version is promoted unless the champion is the same file. The first model is judged by
        the gates alone; a later one must also be no worse than the champion, and better, smaller or faster.
    """
    found = gates.figures(metrics)
    reasons = gates.thresholds(found, policy.gates)
    reasons += slices.reasons(metrics.get("slices", {}), policy.slices, policy.min_count)
    if not reasons:
        reasons.append(gates.none_configured())
    same = champion is not None and champion.artifact_sha256 == metrics.get("artifact_sha256", {}).get("onnx")
    reasons += _against(champion, same, policy)
    if rolled_back is not None:
        sentence = f"This version was rolled back {rolled_back}: only a person's `reflux promote` brings it back."
        reasons.append(Reason("rollback", "max", 0, 1, False, sentence))
    accuracy = found.get("accuracy")
    notes = _reuse(uses, accuracy, gates.measured(metrics.get("test", {}).get("n")), policy.margin)
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
        return [champions.first()]
    if same:
        return [champions.same(champion)]
    return [
        champions.not_worse(champion, policy.margin),
        champions.advantage(champion, policy.margin, policy.alpha, policy.smaller, policy.faster),
    ]


def _reuse(uses: int | None, accuracy: float | None, n: float | None, margin: float) -> tuple[str, ...]:
    """A warning once the best of all models judged on this test split may owe more than the margin to chance.

    A warning, because the remedies in the literature cost what a promotion needs most. Thresholdout (Dwork et al. 2015)
    answers with noise and from a budget: the same file could be promoted today and refused tomorrow, and nobody could
    check the decision. The Ladder (Blum and Hardt 2015) says no more than that a new best was reached, where the model
    card publishes every figure. Both are against someone who fits the test split through its answers, which no stage
    can do: knobs are chosen on validation data, and training can't open the test split. What is left is the luck of the
    best of k. This bounds it; its remedy, fresh images, is in a person's hands.
    """
    if uses is None or accuracy is None or not n or not 0 <= accuracy <= 1:
        return ()
    luck = optimism(accuracy, int(n), uses + 1)
    if not luck > margin:
        return ()
    return (
        f"This test split has served {uses:,} decisions before: the best of {uses + 1:,} equal models may look "
        f"{100 * luck:.2f} points better than it is by chance alone, more than the margin of {100 * margin:g} points. "
        "Give ingest a fresh test split.",
    )


def _crept(
    accuracy: float | None, champion: ChampionEvaluation | None, best: Best | None, policy: Policy
) -> tuple[str, ...]:
    """A warning once the losses of several promotions, each within the margin, have added up to more than it.

    Whoever compares with the last champion alone is led down by small steps, what trials of medicines call biocreep
    (D'Agostino, Massaro and Sullivan 2003): a smaller or faster student may lose up to the margin, the next one as much
    again. This compares with the best champion ever, and warns. It does not refuse, for three reasons. How low
    production may ever sink is a limit of its own, the gate on accuracy, and holds however many steps there were. The
    highest of many measured accuracies is also the luckiest, so a limit drawn from it would refuse students that are no
    worse than any champion was; a paired test needs that champion's file, which may be long gone. And every step was a
    trade, accuracy for size or time, that the policy calls worth it: whether their sum is, only a person can say, here,
    or by ``reflux rollback --to``.
    """
    if accuracy is None or best is None or (champion is not None and champion.version == best.version):
        return ()
    if not best.accuracy - accuracy > policy.margin:
        return ()
    floor = gates.measured(policy.gates.get("accuracy", {}).get("min"))
    bound = "no gate on accuracy bounds it" if floor is None else f"the gate on accuracy alone, {floor:g}, bounds it"
    return (
        f"This version is {100 * (best.accuracy - accuracy):.2f} points below version {best.version}, the most "
        f"accurate champion on this test split: losses within the margin of {100 * policy.margin:g} points have added "
        f"up to more than it, and {bound}.",
    )
