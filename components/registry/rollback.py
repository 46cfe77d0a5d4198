"""Roll back: put an earlier champion into production again, within seconds."""

from collections.abc import Mapping

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.client import CHAMPION, PREVIOUS
from reflux.components.registry.ledger import ledger, proof
from reflux.components.registry.ledger.commit import commit, reconcile
from reflux.components.registry.ledger.ledger import Intent
from reflux.components.registry.ledger.record import ROLLBACK_NOTE, lineage_tags, utc_now
from reflux.components.registry.text import markdown
from reflux.components.registry.versions import signatures, smoke
from reflux.components.registry.versions.files import fetch_files, read_evaluation


def rollback(
    project: str, model_name: str, reason: str, to: int | None = None, who: str | None = None
) -> tuple[int, int]:
    """Make an earlier champion the champion again, and the present one ``previous``.

    The version that is rolled back is not promoted again automatically.

    Args:
        project: the project's name; the attempt goes into its ledger.
        model_name: the registered model.
        reason: a person's reason, for the record.
        to: the version to go back to, which must have been champion; by default the previous one.
        who: recorded as the author; ``user@host`` by default.

    Returns:
        The versions that are now champion and previous.

    Raises:
        UserError: no reason is given, nothing is there to go back to, or that version was changed or fails its tests.
        ChampionMoved: another process moved the champion at this moment.
        Unreachable: MLflow does not answer; the champion is untouched, or the next command finishes what was begun.
    """
    if not reason.strip():
        raise UserError("A rollback is recorded with its reason: `reflux rollback --reason …`.")
    by, at = client.identity(who), utc_now()
    mlflow = client.connect()
    reconcile(mlflow, project, model_name)
    with client.translate_errors():
        aliases = client.aliases(mlflow, model_name)
        old, target = _old_and_target(aliases, model_name, to)
        back = client.version(mlflow, model_name, target)
        record = proof.promoted(mlflow, project, back)
        with fetch_files(back) as files:
            signatures.check(f"{model_name} version {target}", files.folder)
            # Without the latency gate: a slow model beats the one that made someone roll back.
            smoke_test = smoke.check(files, read_evaluation(back, files).get("probe_sha256"))
        if not smoke_test.passed:
            raise UserError(f"{model_name} stays at version {old}: {smoke_test.sentence}")
        since = markdown.since(at, by, reason)
        intent = Intent(
            action="rollback",
            model=model_name,
            version=target,
            outcome=ledger.ROLLED_BACK,
            by=by,
            reason=reason,
            at=at,
            champion=old,
            previous=aliases.get(PREVIOUS),
            why=f"Version {old} was rolled back: {reason}",
            note=f"**Back to version {target}**, from version {old}, by {by}: {reason}",
            aliases={PREVIOUS: old, CHAMPION: target},
            tags={str(old): {ROLLBACK_NOTE: f"at {at} by {by} ({reason})"}, str(target): {ROLLBACK_NOTE: None}},
            front=markdown.front(model_name, project, target, old, since, back.tags, record["policy"]),
            lineage=lineage_tags(back.tags),
        )
        commit(mlflow, project, intent)
    return target, old


def _old_and_target(aliases: Mapping[str, int], model_name: str, to: int | None) -> tuple[int, int]:
    old = aliases.get(CHAMPION)
    target = to if to is not None else aliases.get(PREVIOUS)
    if old is None:
        raise UserError(f"{model_name} has no champion, so there is nothing to roll back: see `reflux history`.")
    if to == old:
        raise UserError(f"{model_name} version {old} is the champion already.")
    if target is None or target == old:
        raise UserError(f"{model_name} version {old} is the first champion: there is no earlier one to go back to.")
    return old, target
