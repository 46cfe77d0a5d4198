"""The proof of a decision: its record, logged to the ledger before anything moves, whose hash the version carries.

Tags only say where a record is. A version is moved by what the record says, if it has the hash, is of this version, and
is the last one in the ledger.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.client import CHAMPION
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.ledger import DECISION, Intent, Outcome
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.files import FILES_SHA256

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DECIDED = ("gate.run_id", "gate.sha256")  # tags that say where the last decision's record is, and its hash
PROMOTED = ("promoted.run_id", "promoted.sha256")  # likewise of the last promotion
SIGNATURE = "decision.sig"  # of decision.json, which names project, model, version and the hash of all files
_LARGEST = 8 * 2**20  # bytes; a record with hundreds of gated slices has a tenth of it


class Unproven(UserError):
    """A version has no decision that its record proves."""


def content(record: Mapping[str, Any]) -> bytes:
    """Write a record as the bytes of ``decision.json``."""
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def log(mlflow: "MlflowClient", run_id: str, record: Mapping[str, Any]) -> None:
    """Log a record to its attempt, with a key also its signature; the record is last, as it counts once it is there."""
    if (signature := signatures.sign_bytes(content(record))) is not None:
        with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
            path = Path(temporary, SIGNATURE)
            path.write_bytes(signature)
            mlflow.log_artifact(run_id, str(path))
    mlflow.log_text(run_id, content(record).decode(), DECISION)


def tags(run_id: str, record: Mapping[str, Any], outcome: Outcome) -> dict[str, str]:
    """Make the tags by which a version carries a record."""
    values = (run_id, hashlib.sha256(content(record)).hexdigest())
    promoted = dict(zip(PROMOTED, values, strict=True)) if outcome == ledger.PROMOTED else {}
    return promoted | dict(zip(DECIDED, values, strict=True))


def decided(mlflow: "MlflowClient", project: str, version: "ModelVersion") -> dict[str, Any]:
    """Fetch the record of the last decision on a version.

    Raises:
        Unproven: there was none, or its record is gone, was edited, or is not the last one.
    """
    name, number = version.name, int(version.version)
    record = _record(mlflow, project, version, DECIDED)
    last = ledger.last_decision(mlflow, project, name, number)
    if last != version.tags[DECIDED[0]]:
        raise Unproven(
            f"The tag {DECIDED[0]} of {name} version {number} names another decision than its last one: someone edited "
            f"it in MLflow; `reflux promote {number}` decides again."
        )
    return record


def promoted(mlflow: "MlflowClient", project: str | None, version: "ModelVersion") -> dict[str, Any]:
    """Fetch the record of the last promotion of a version, by whatever project where none is given.

    Raises:
        Unproven: it never was champion, or its record is gone or was edited.
    """
    record = _record(mlflow, project, version, PROMOTED)
    if record.get("outcome") != ledger.PROMOTED:
        raise Unproven(
            f"{version.name} version {version.version} never was champion: the decision that its tag {PROMOTED[0]} "
            f"names is {record.get('outcome')}; `reflux promote {version.version}` decides on it."
        )
    return record


def find_problem(mlflow: "MlflowClient", project: str, run_id: str, intent: Intent) -> str | None:
    """Find the reason why no decision proves an attempt that was broken off; None if one does.

    An intent is in tags, so that what it states is not enough: a promotion needs the record that was logged after it, a
    rollback that of the promotion of the version that it goes back to.
    """
    moves = intent.aliases.get(CHAMPION)
    if moves is not None and (moves, intent.outcome in ledger.MOVED) != (intent.version, True):
        return f"It would make version {moves} champion, which it is not about: someone edited it in MLflow."
    version = client.version(mlflow, intent.model, intent.version)
    if intent.record is not None:
        if intent.record.get(FILES_SHA256) != version.tags.get(FILES_SHA256):
            return f"It was on other files than those of the version's tag {FILES_SHA256}."
        logged = _fetch(mlflow, run_id)
        return _difference(logged, intent) or (_unsigned(mlflow, run_id, logged) if logged else None)
    if intent.action == "promote":
        return "It has no decision: someone edited it in MLflow."
    try:
        promoted(mlflow, project, version)
    except Unproven as error:
        return str(error)
    return None


def _difference(logged: bytes | None, intent: Intent) -> str | None:
    record = intent.record or {}
    if logged is None:
        return f"It broke off before its decision was recorded: `reflux promote {intent.version}` takes it again."
    subject = (record.get("model"), record.get("version"), record.get("outcome"))
    if logged != content(record) or subject != (intent.model, intent.version, intent.outcome):
        return f"Its {DECISION} is not the decision that it was to carry out: someone edited one of the two in MLflow."
    return None


def _record(
    mlflow: "MlflowClient", project: str | None, version: "ModelVersion", where: tuple[str, str]
) -> dict[str, Any]:
    name, number = f"{version.name} version {version.version}", int(version.version)
    run_id, sha256 = (version.tags.get(tag) for tag in where)
    again = f"`reflux promote {number}` decides on it"
    if run_id is None or sha256 is None:
        missing = "never was champion" if where == PROMOTED else "was never decided on"
        raise Unproven(f"{name} {missing}: {again}.")
    logged = _fetch(mlflow, run_id)
    if logged is None:
        raise Unproven(f"The record of the decision on {name} is gone from MLflow (run {run_id}): {again} again.")
    if hashlib.sha256(logged).hexdigest() != sha256:
        raise Unproven(f"The record of the decision on {name} is not the one that it was decided by: {again} again.")
    if unsigned := _unsigned(mlflow, run_id, logged):
        raise Unproven(f"{name} is refused. {unsigned}")
    record: dict[str, Any] = json.loads(logged)
    subject = (record.get("project"), record.get("model"), record.get("version"))
    if subject != (project or subject[0], version.name, number):
        of = f"{subject[1]} version {subject[2]} of the project {subject[0]}"
        raise Unproven(f"{name} carries the decision on another version ({of}): {again}.")
    if record.get(FILES_SHA256) != version.tags.get(FILES_SHA256):
        raise Unproven(f"The decision on {name} was on other files than those of its tag {FILES_SHA256}: {again}.")
    return record


def _unsigned(mlflow: "MlflowClient", run_id: str, logged: bytes) -> str | None:
    problem = signatures.find_problem_of_bytes(logged, _fetch(mlflow, run_id, SIGNATURE))
    return f"Its {DECISION} can't be trusted: {problem}." if problem else None


def _fetch(mlflow: "MlflowClient", run_id: str, name: str = DECISION) -> bytes | None:
    """Fetch the bytes of a file of an attempt, by default ``decision.json``; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        with client.translate_errors(), tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
            sizes = {file.path: file.file_size or 0 for file in mlflow.list_artifacts(run_id)}
            if name not in sizes:
                return None
            if sizes[name] > _LARGEST:
                raise Unproven(f"{name} of the run {run_id} has {sizes[name]:,} bytes: it is no decision's record.")
            return Path(mlflow.download_artifacts(run_id, name, temporary)).read_bytes()
    except (MlflowException, OSError):  # no such run, or no such file
        return None
