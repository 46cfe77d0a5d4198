"""What is written down about a decision, and found again when nothing has changed since."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.registry import describe, server
from components.registry.gates import Decision

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DECISION = Path("promote") / "decision.json"
PROMOTED_AT, PROMOTED_BY, PROMOTED_OVER = "promoted.at", "promoted.by", "promoted.over"
ROLLBACK_NOTE = "rollback.note"

_RUN_FOLDER = "promote"


@dataclass(frozen=True)
class Grounds:
    """All that a decision on a version rests on, but for the version itself and the champion."""

    gates: Mapping[str, Mapping[str, float]]
    margin: float
    resamples: int
    seed: int

    def key(self, tags: Mapping[str, str], test_fingerprint: str) -> str:
        """Equal keys mean that the decision would be taken on the same grounds again."""
        parts = [tags.get("lineage.key"), self.gates, self.margin, self.resamples, self.seed, test_fingerprint]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def taken(mlflow: "MlflowClient", found: "ModelVersion", key: str, champion: int | None) -> dict[str, Any] | None:
    """The decision that was taken on the same grounds, if any.

    The tag ``gate.key`` is written last, so where it stands the decision was carried out and recorded whole.
    """
    import mlflow as api
    from mlflow.exceptions import MlflowException

    if found.tags.get("gate.key") != key:
        return None
    try:
        record = api.artifacts.load_dict(f"runs:/{found.tags['gate.run_id']}/{_RUN_FOLDER}/{_file(found)}")
    except (MlflowException, OSError, KeyError):
        return None  # deleted by hand: it is taken again
    holds = champion == int(found.version) if record["promoted"] else champion == record["compared_with"]
    return record if holds else None


def record(
    found: "ModelVersion",
    artifact_sha256: str,
    metrics: Mapping[str, Any],
    dataset: Mapping[str, Any],
    decision: Decision,
    champion: int | None,
    grounds: Grounds,
    who: str,
) -> dict[str, Any]:
    """The content of ``decision.json``: the verdict and every number it used."""
    return {
        "model": found.name,
        "version": int(found.version),
        **asdict(decision),
        "promoted": False,
        "compared_with": champion,
        "margin": grounds.margin,
        "gates": {name: dict(bound) for name, bound in grounds.gates.items()},
        "figures": metrics["shipped"]["onnx"],
        "bootstrap": {"resamples": grounds.resamples, "seed": grounds.seed, "confidence": 0.95},
        "test": {"fingerprint": dataset["fingerprints"]["test"], "n": metrics["test"]["n"]},
        "artifact_sha256": artifact_sha256,
        "lineage": {k: found.tags[k] for k in sorted(found.tags) if k in describe.LINEAGE or k == "lineage.key"},
        "decided_at": now(),
        "decided_by": who,
    }


def note(
    mlflow: "MlflowClient",
    found: "ModelVersion",
    record: Mapping[str, Any],
    description: str,
    key: str,
    run_id: str,
    path: Path,
) -> None:
    """Write the decision where a team looks for it: on the run, and on the version."""
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        copy = Path(temporary) / _file(found)
        copy.write_bytes(path.read_bytes())
        mlflow.log_artifact(run_id, str(copy), _RUN_FOLDER)
    mlflow.update_model_version(found.name, str(found.version), description)
    server.tag(
        mlflow,
        found,
        {
            "gate.status": record["status"],
            "gate.reasons": " ".join(reason["sentence"] for reason in record["reasons"]),
            "gate.decided_at": record["decided_at"],
            "gate.decided_by": record["decided_by"],
            "gate.run_id": run_id,
            "gate.key": key,
        },
    )


def act(record: Mapping[str, Any], moved: bool, champion: int | None) -> str:
    """What a decision did, or left, as a sentence."""
    if champion is None:
        return "There is no champion yet."
    if champion != record["version"]:
        return f"The champion stays version {champion}."
    if not record["promoted"]:
        return "It is the champion already."
    return f"{'Promoted at' if moved else 'It is the champion since'} {record['promoted_at']}."


def _file(found: "ModelVersion") -> str:
    return f"decision-v{int(found.version)}.json"


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
