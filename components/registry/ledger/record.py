"""The record of a decision: what MLflow and ``decision.json`` keep of it, and how an unchanged one is recognized."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reflux.components.core.contract import shipped
from reflux.components.core.params.sections import Params
from reflux.components.registry.client import CHAMPION, PREVIOUS
from reflux.components.registry.ledger import ledger, proof
from reflux.components.registry.ledger.ledger import Intent, Outcome
from reflux.components.registry.policy.comparison import ChampionEvaluation
from reflux.components.registry.policy.decision import Decision, Policy
from reflux.components.registry.policy.gates import NO_DEVICES, Devices, Reason
from reflux.components.registry.text import markdown
from reflux.components.registry.versions.files import FILES_SHA256

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DECISION = Path("promote") / ledger.DECISION
PROMOTED_AT, PROMOTED_BY, PROMOTED_OVER = "promoted.at", "promoted.by", "promoted.over"
ROLLBACK_NOTE = "rollback.note"
APPROVAL, APPROVAL_FLOW = "approval.state", "approval.flow_run_id"
AWAITED, APPROVED = "awaited", "approved"

Approval = Literal["auto", "human"]


@dataclass(frozen=True)
class Grounds:
    """Everything that a decision rests on, except the version itself and the champion.

    ``resamples`` and ``seed`` are the bootstrap's; with the approval ``human`` a validated version awaits ``approve``.
    """

    policy: Policy
    resamples: int
    seed: int
    approval: Approval = "auto"

    @classmethod
    def of(cls, params: Params) -> "Grounds":
        """The grounds that the params state."""
        return cls(Policy.of(params.registry), params.evaluate.bootstrap, params.seed, params.registry.approval)

    def key(self, tags: Mapping[str, str], test_fingerprint: str, reports: Devices = NO_DEVICES) -> str:
        """Hash the grounds together with a version: equal keys mean that the same decision would be taken again.

        Args:
            tags: of the version.
            test_fingerprint: of the test split.
            reports: of the devices that the gates name.
        """
        parts = [tags.get("lineage.key"), asdict(self), test_fingerprint]
        parts += [report.run_id for report in reports.values()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unchanged_record(
    mlflow: "MlflowClient", project: str, version: "ModelVersion", key: str, champion: int | None
) -> dict[str, Any] | None:
    """The record of the decision that was taken on the same grounds, if there is one that is proven.

    The tag ``gate.key`` is written last, so a version that has it was decided on and recorded completely.
    """
    if version.tags.get("gate.key") != key:
        return None
    try:
        record = proof.decided(mlflow, project, version)
    except proof.Unproven:
        return None
    expected = int(version.version) if record["outcome"] == ledger.PROMOTED else record["compared_with"]
    return record if champion == expected else None


def decision_record(
    project: str,
    version: "ModelVersion",
    artifact_sha256: str,
    metrics: Mapping[str, Any],
    dataset: Mapping[str, Any],
    decision: Decision,
    outcome: Outcome,
    champion: int | None,
    grounds: Grounds,
    who: str,
    at: str,
) -> dict[str, Any]:
    """The content of ``decision.json``: the decision and every number that it used."""
    return {
        "project": project,
        "model": version.name,
        "version": int(version.version),
        **asdict(decision),
        "outcome": outcome,
        "compared_with": champion,
        "policy": asdict(grounds.policy),
        "figures": shipped(metrics),
        "gain": metrics.get("gain", {}),
        "bootstrap": {"resamples": grounds.resamples, "seed": grounds.seed, "confidence": 0.95},
        "test": {"fingerprint": dataset["fingerprints"]["test"], "n": metrics["test"]["n"]},
        "artifact_sha256": artifact_sha256,
        FILES_SHA256: version.tags[FILES_SHA256],
        "lineage": lineage_tags(version.tags) | {k: version.tags[k] for k in ("lineage.key",) if k in version.tags},
        "decided_at": at,
        "decided_by": who,
    }


def lineage_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that say where a version comes from."""
    return {key: tags[key] for key in sorted(tags) if key in markdown.LINEAGE}


def promotion_intent(
    project: str,
    version: "ModelVersion",
    record: Mapping[str, Any],
    metrics: Mapping[str, Any],
    names: Mapping[str, str],
    dataset: str,
    who: str,
    reason: str,
    at: str,
    key: str,
) -> Intent:
    """Turn a recorded decision into the intent that carries it out."""
    number, champion, outcome = int(version.version), record["compared_with"], record["outcome"]
    effect = describe_effect(outcome, number, champion, at)
    tags: dict[str, str | None] = {**decision_tags(record)}
    aliases: dict[str, int] = {}
    front = None
    if APPROVAL in version.tags or outcome == ledger.AWAITING:
        tags[APPROVAL] = AWAITED if outcome == ledger.AWAITING else None
    if outcome == ledger.PROMOTED:
        aliases = ({PREVIOUS: champion} if champion is not None else {}) | {CHAMPION: number}
        tags |= {PROMOTED_AT: at, PROMOTED_BY: who, PROMOTED_OVER: str(champion), ROLLBACK_NOTE: None}
        since = markdown.since(at, who, reason)
        front = markdown.front(version.name, project, number, champion, since, version.tags, record["policy"])
    elif champion is None:
        front = markdown.front(version.name, project, None, None, "", {}, record["policy"])
    return Intent(
        action="promote",
        model=version.name,
        version=number,
        outcome=outcome,
        by=who,
        reason=reason,
        at=at,
        champion=champion,
        previous=None,
        why=markdown.why(effect, record["reasons"]),
        note=markdown.attempt(number, outcome, who, reason, effect, record["reasons"], record["notes"]),
        aliases=aliases,
        tags={str(number): tags | {"gate.key": key}},
        description=markdown.version(metrics, names, dataset, version.tags, recorded_decision(record), effect),
        front=front,
        lineage=lineage_tags(version.tags),
        figures=markdown.recorded_figures(record),
        record=record,
    )


def recorded_decision(record: Mapping[str, Any]) -> Decision:
    """The decision that a record holds."""
    champion = record["champion"]
    return Decision(
        status=record["status"],
        promote=record["promote"],
        first=record["first"],
        reasons=tuple(Reason(**reason) for reason in record["reasons"]),
        champion=ChampionEvaluation(**champion) if champion else None,
        uses=record["uses"],
        notes=tuple(record["notes"]),
    )


def decision_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a decision leaves on its version."""
    return {
        "gate.status": record["status"],
        "gate.reasons": " ".join([*(reason["sentence"] for reason in record["reasons"]), *record["notes"]]),
        "gate.decided_at": record["decided_at"],
        "gate.decided_by": record["decided_by"],
    }


def describe_effect(outcome: Outcome, version: int, champion: int | None, at: str) -> str:
    """A sentence on what a decision changes or leaves as it is."""
    if outcome == ledger.PROMOTED:
        return f"Promoted at {at}" + (f", over version {champion}." if champion else ".")
    stays = "There is no champion yet." if champion is None else f"The champion stays version {champion}."
    if champion == version:
        stays = "It is the champion already."
    return f"It awaits `reflux approve {version} --reason …`. {stays}" if outcome == ledger.AWAITING else stays


def utc_now() -> str:
    """The present time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
