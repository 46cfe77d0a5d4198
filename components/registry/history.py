"""What happened to a model's versions, and the way back to the one before."""

from dataclasses import dataclass
from datetime import UTC, datetime

from components.core.errors import UserError
from components.registry import server
from components.registry.audit import PROMOTED_AT, PROMOTED_BY, ROLLBACK_NOTE
from components.registry.promote import move
from components.registry.server import CHAMPION, PREVIOUS
from components.registry.shipped import fetched


@dataclass(frozen=True)
class Row:
    """One version.

    Attributes:
        version: its number.
        aliases: such as ``champion``.
        status: UNKNOWN, REJECTED or VALIDATED.
        accuracy: on its test split; None when it was not measured.
        size_kb: of the file that ships.
        created: when it was registered.
        reason: why it has its status, and what was done with it.
    """

    version: int
    aliases: tuple[str, ...]
    status: str
    accuracy: float | None
    size_kb: float | None
    created: datetime
    reason: str


def history(model_name: str) -> list[Row]:
    """Every version of a model, newest first.

    Raises:
        UserError: the model is not registered.
        Unreachable: MLflow does not answer.
    """
    mlflow = server.client()
    with server.speaking():
        aliases = server.aliases(mlflow, model_name)
        found = server.versions(mlflow, model_name)
    rows = []
    for version in reversed(found):
        tags, number = version.tags, int(version.version)
        size = _number(tags.get("size_bytes"))
        rows.append(
            Row(
                version=number,
                aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
                status=tags.get("gate.status", "UNKNOWN"),
                accuracy=_number(tags.get("accuracy")),
                size_kb=None if size is None else size / 1024,
                created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
                reason=_reason(tags),
            )
        )
    return rows


def rollback(model_name: str, reason: str = "", who: str | None = None) -> tuple[int, int]:
    """Make the previous version the champion again, and the champion the previous one.

    The version that is rolled back is not promoted again by itself.

    Args:
        model_name: the registered model.
        reason: why, for the record.
        who: recorded as the author; ``user@host`` by default.

    Returns:
        The versions that are now champion and previous.

    Raises:
        UserError: there is no champion or no version before it, or that version's file was changed.
        Unreachable: MLflow does not answer.
    """
    mlflow = server.client()
    with server.lock(model_name), server.speaking():
        before = server.aliases(mlflow, model_name)
        old, target = before.get(CHAMPION), before.get(PREVIOUS)
        if old is None:
            raise UserError(f"{model_name} has no champion, so there is nothing to roll back.")
        if target is None or target == old:
            raise UserError(f"{model_name} version {old} is the first champion: there is none before it to go back to.")
        back = server.version(mlflow, model_name, target)
        with fetched(back):
            move(mlflow, model_name, target, before)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        note = f"at {at} by {who or server.whoami()}" + (f" ({reason})" if reason else "")
        server.tag(mlflow, server.version(mlflow, model_name, old), {ROLLBACK_NOTE: note})
        if ROLLBACK_NOTE in back.tags:
            mlflow.delete_model_version_tag(model_name, str(target), ROLLBACK_NOTE)
    return target, old


def _reason(tags: dict[str, str]) -> str:
    parts = []
    if PROMOTED_AT in tags:
        parts.append(f"Promoted at {tags[PROMOTED_AT]} by {tags.get(PROMOTED_BY, 'somebody')}.")
    if ROLLBACK_NOTE in tags:
        parts.append(f"Rolled back {tags[ROLLBACK_NOTE]}.")
    return " ".join([*parts, tags.get("gate.reasons", "Not decided yet.")])


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None  # edited by hand
