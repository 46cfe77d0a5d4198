"""What is written down about a decision, and found again when nothing has changed since."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.registry.client import CHAMPION, PREVIOUS
from components.registry.ledger import ledger
from components.registry.ledger.ledger import Intent, Outcome
from components.registry.policy.comparison import ChampionEvaluation
from components.registry.policy.decision import Decision, Policy
from components.registry.policy.gates import Reason
from components.registry.text import markdown

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DECISION = Path("promote") / ledger.DECISION
PROMOTED_AT, PROMOTED_BY, PROMOTED_OVER = "promoted.at", "promoted.by", "promoted.over"
ROLLBACK_NOTE = "rollback.note"
APPROVAL, APPROVAL_FLOW = "approval.state", "approval.flow_run_id"
AWAITED, APPROVED = "awaited", "approved"


@dataclass(frozen=True)
class Grounds:
    """All that a decision on a version rests on, but for the version itself and the champion."""

    policy: Policy
    resamples: int
    seed: int
    approval: str

    def key(self, tags: Mapping[str, str], test_fingerprint: str) -> str:
        """Equal keys mean that the decision would be taken on the same grounds again."""
        parts = [tags.get("lineage.key"), asdict(self), test_fingerprint]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def taken(found: "ModelVersion", key: str, champion: int | None) -> dict[str, Any] | None:
    """The decision that was taken on the same grounds, if any.

    The tag ``gate.key`` is written last, so where it stands the decision was carried out and recorded whole.
    """
    record = recorded(found) if found.tags.get("gate.key") == key else None
    if record is None:
        return None
    expected = int(found.version) if record["outcome"] == ledger.PROMOTED else record["compared_with"]
    return record if champion == expected else None


def recorded(found: "ModelVersion") -> dict[str, Any] | None:
    """The last decision on a version; None when it was deleted by hand, or was never taken."""
    import mlflow as api
    from mlflow.exceptions import MlflowException

    try:
        return api.artifacts.load_dict(f"runs:/{found.tags['gate.run_id']}/{ledger.DECISION}")
    except (MlflowException, OSError, KeyError):
        return None


def record(
    found: "ModelVersion",
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
    """The content of ``decision.json``: the verdict and every number it used."""
    return {
        "model": found.name,
        "version": int(found.version),
        **asdict(decision),
        "outcome": outcome,
        "compared_with": champion,
        "policy": asdict(grounds.policy),
        "figures": metrics["shipped"]["onnx"],
        "bootstrap": {"resamples": grounds.resamples, "seed": grounds.seed, "confidence": 0.95},
        "test": {"fingerprint": dataset["fingerprints"]["test"], "n": metrics["test"]["n"]},
        "artifact_sha256": artifact_sha256,
        "lineage": lineage(found.tags) | {k: found.tags[k] for k in ("lineage.key",) if k in found.tags},
        "decided_at": at,
        "decided_by": who,
    }


def lineage(tags: Mapping[str, str]) -> dict[str, str]:
    """Where a version comes from."""
    return {key: tags[key] for key in sorted(tags) if key in markdown.LINEAGE}


def intent(
    project: str,
    found: "ModelVersion",
    record: Mapping[str, Any],
    metrics: Mapping[str, Any],
    names: Mapping[str, str],
    dataset: str,
    who: str,
    reason: str,
    at: str,
    key: str,
) -> Intent:
    """A decision as what is to be done about it."""
    number, champion, outcome = int(found.version), record["compared_with"], record["outcome"]
    done = did(outcome, number, champion, at)
    tags: dict[str, str | None] = {**decided(record)}
    aliases: dict[str, int] = {}
    front = None
    if APPROVAL in found.tags or outcome == ledger.AWAITING:
        tags[APPROVAL] = AWAITED if outcome == ledger.AWAITING else None
    if outcome == ledger.PROMOTED:
        aliases = ({PREVIOUS: champion} if champion is not None else {}) | {CHAMPION: number}
        tags |= {PROMOTED_AT: at, PROMOTED_BY: who, PROMOTED_OVER: str(champion), ROLLBACK_NOTE: None}
        since = markdown.since(at, who, reason)
        front = markdown.front(found.name, project, number, champion, since, found.tags, record["policy"])
    elif champion is None:
        front = markdown.front(found.name, project, None, None, "", {}, record["policy"])
    return Intent(
        action="promote",
        model=found.name,
        version=number,
        outcome=outcome,
        by=who,
        reason=reason,
        at=at,
        champion=champion,
        previous=None,
        why=markdown.why(done, record["reasons"]),
        note=markdown.attempt(number, outcome, who, reason, done, record["reasons"], record["notes"]),
        aliases=aliases,
        tags={str(number): tags | {"gate.key": key}},
        description=markdown.version(metrics, names, dataset, found.tags, verdict(record), done),
        front=front,
        lineage=lineage(found.tags),
        figures=markdown.measured(record),
        record=record,
    )


def verdict(record: Mapping[str, Any]) -> Decision:
    """The verdict that a record holds."""
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


def decided(record: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a decision leaves on its version."""
    return {
        "gate.status": record["status"],
        "gate.reasons": " ".join([*(reason["sentence"] for reason in record["reasons"]), *record["notes"]]),
        "gate.decided_at": record["decided_at"],
        "gate.decided_by": record["decided_by"],
    }


def did(outcome: Outcome, version: int, champion: int | None, at: str) -> str:
    """What a decision does, or leaves, as a sentence."""
    if outcome == ledger.PROMOTED:
        return f"Promoted at {at}" + (f", over version {champion}." if champion else ".")
    stays = "There is no champion yet." if champion is None else f"The champion stays version {champion}."
    if champion == version:
        stays = "It is the champion already."
    return f"It awaits `reflux approve {version} --reason …`. {stays}" if outcome == ledger.AWAITING else stays


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
