"""Commit an intent: write it down, carry it out under the model's lock, and close it with its outcome.

Once the intent is written it counts. An attempt that breaks off afterwards is not undone but finished, by
``reconcile``, with which every command that touches the registry begins. Each step sets what the intent states, so
repeating a step changes nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from reflux.components.core.errors import UserError
from reflux.components.registry import client, webhooks
from reflux.components.registry.client import CHAMPION, PREVIOUS, describe_champion
from reflux.components.registry.ledger import ledger, lock, proof
from reflux.components.registry.ledger.ledger import Damage, Intent, Outcome
from reflux.components.registry.ledger.lock import Check
from reflux.components.registry.text import urls
from reflux.components.registry.versions import signatures
from reflux.components.registry.versions.files import fetch_files

if TYPE_CHECKING:
    from mlflow import MlflowClient


_EVENTS: Mapping[Outcome, webhooks.EventName] = {
    ledger.PROMOTED: "promoted",
    ledger.REJECTED: "rejected",
    ledger.UNKNOWN: "rejected",
    ledger.AWAITING: "awaiting approval",
    ledger.ROLLED_BACK: "rolled back",
    ledger.OVERTAKEN: "failed",
    ledger.REFUSED: "failed",
}


class ChampionMoved(UserError):
    """The champion is not the one that the intent was based on."""

    exit_code = 4


class _Late(Exception):
    """``ChampionMoved``, before the ledger has it."""

    def __init__(self, champion: int | None) -> None:
        self.champion = champion


def commit(mlflow: "MlflowClient", project: str, intent: Intent) -> dict[str, int]:
    """Carry an intent out if the champion is still the one that it was based on: compare and swap.

    Returns:
        The version that each alias points at afterwards.

    Raises:
        ChampionMoved: the champion is another one by now; nothing was changed, and the ledger has the attempt.
        LockLost: the lock was lost on the way; its new holder has finished the intent.
        Unreachable: MLflow stopped answering; the next command finishes what was begun.
    """

    def compare() -> dict[str, int]:
        aliases = client.aliases(mlflow, intent.model)
        if aliases.get(CHAMPION) != intent.champion:
            raise _Late(aliases.get(CHAMPION))
        return aliases

    try:
        with client.translate_errors(), lock.held(mlflow, intent.model, waiting=compare) as check:
            _settle_all(mlflow, project, intent.model, check)
            whole = replace(intent, previous=compare().get(PREVIOUS))
            run_id = client.retry(lambda: ledger.begin(mlflow, project, whole))
            if (record := whole.record) is not None:
                client.retry(lambda: proof.log(mlflow, run_id, record))
            return client.retry(lambda: carry_out(mlflow, run_id, whole, check))
    except _Late as late:
        raise overtaken(mlflow, project, intent, late.champion) from None


def overtaken(mlflow: "MlflowClient", project: str, intent: Intent, champion: int | None) -> ChampionMoved:
    """Write an attempt that came too late into the ledger; returns the error to raise."""
    why = _moved(intent, champion)
    late = replace(intent, why=why, note=f"**Version {intent.version} overtaken.** {why}")
    run_id = client.retry(lambda: ledger.begin(mlflow, project, late, ledger.OVERTAKEN))
    client.retry(lambda: ledger.close(mlflow, run_id, ledger.OVERTAKEN))
    return ChampionMoved(why)


def reconcile(mlflow: "MlflowClient", project: str, model: str) -> list[ledger.Entry]:
    """Finish or close every attempt that was broken off; if there is none, this only reads.

    Returns:
        The attempts that were settled.

    Raises:
        UserError: another process holds the lock for minutes, or MLflow does not answer.
    """
    if not client.retry(lambda: ledger.is_open(mlflow, project, model)):
        return []
    with client.translate_errors(), lock.held(mlflow, model) as check:
        settled = _settle_all(mlflow, project, model, check)
        return [entry for run_id in settled if (entry := ledger.entry(mlflow, run_id)).outcome is not None]


def carry_out(mlflow: "MlflowClient", run_id: str, intent: Intent, check: Check) -> dict[str, int]:
    """Do everything that an intent states, the aliases last, and close it.

    What MLflow refuses, it refuses before the champion has moved.

    Raises:
        ChampionMoved: someone moved an alias at this moment, without the lock.
        LockLost: another process holds the lock.
    """
    check()
    ledger.log_figures(mlflow, run_id, intent)
    if intent.record is not None:
        carried = proof.tags(run_id, intent.record, intent.outcome)
        client.set_tags(mlflow, intent.model, intent.version, carried)
    for version, tags in intent.tags.items():
        client.set_tags(mlflow, intent.model, int(version), tags)
    if intent.description is not None:
        mlflow.update_model_version(intent.model, str(intent.version), client.fit(intent.description))
    if intent.front is not None:
        mlflow.update_registered_model(intent.model, client.fit(intent.front))
    for alias, number in intent.aliases.items():
        check()
        client.set_alias(mlflow, intent.model, alias, number)
    aliases = client.aliases(mlflow, intent.model)
    check()
    if any(aliases.get(alias) != number for alias, number in intent.aliases.items()):
        why = _moved(intent, aliases.get(CHAMPION))
        _end(mlflow, run_id, intent, ledger.OVERTAKEN, aliases, why)
        raise ChampionMoved(why)
    _end(mlflow, run_id, intent, intent.outcome, aliases)
    return aliases


def _settle_all(mlflow: "MlflowClient", project: str, model: str, check: Check) -> list[str]:
    """Settle each open attempt by itself: one that can't be finished is closed as failed, and holds up no other."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    attempts = client.retry(lambda: ledger.open_attempts(mlflow, project, model))
    for run_id, attempt in attempts:
        try:
            client.retry(partial(_settle, mlflow, project, run_id, attempt, check))
        except ChampionMoved:  # it is closed as overtaken
            continue
        except (client.Unreachable, client.Refused, lock.LockLost):
            raise
        except (UserError, MlflowException, SQLAlchemyError) as error:
            sentence = str(error) if isinstance(error, UserError) else f"MLflow refused it ({_first_line(error)})."
            client.retry(partial(ledger.end, mlflow, run_id, ledger.FAILED, sentence))
    return [run_id for run_id, _ in attempts]


def _first_line(error: Exception) -> str:
    return client.fit(str(error).strip().partition("\n")[0], 300)


def _settle(mlflow: "MlflowClient", project: str, run_id: str, intent: Intent | Outcome | Damage, check: Check) -> None:
    """Finish or close one open attempt."""
    if ledger.is_twin(mlflow, project, run_id):
        mlflow.delete_run(run_id)
        return
    if isinstance(intent, Damage):
        ledger.end(mlflow, run_id, ledger.FAILED, intent.sentence)
        return
    if not isinstance(intent, Intent):  # its outcome is written already
        ledger.close(mlflow, run_id, intent)
        return
    aliases = client.aliases(mlflow, intent.model)
    client.version(mlflow, intent.model, intent.version)  # it may be deleted by now
    if unproven := proof.find_problem(mlflow, project, run_id, intent):
        _end(mlflow, run_id, intent, ledger.FAILED, aliases, f"{unproven} Nothing was moved.")
        return
    champion, target = aliases.get(CHAMPION), intent.aliases.get(CHAMPION)
    if target is not None and champion not in (target, intent.champion):
        _end(mlflow, run_id, intent, ledger.OVERTAKEN, aliases, _moved(intent, champion))
        return
    if target is not None and champion != target and (broken := _broken(mlflow, intent)):
        check()
        client.set_alias(mlflow, intent.model, PREVIOUS, intent.previous)
        aliases = client.aliases(mlflow, intent.model)
        _end(mlflow, run_id, intent, ledger.REFUSED, aliases, f"{broken} The champion stays version {champion}.")
        return
    carry_out(mlflow, run_id, intent, check)


def _broken(mlflow: "MlflowClient", intent: Intent) -> str | None:
    """The reason why the target must not become champion any more, if there is one."""
    try:
        with fetch_files(client.version(mlflow, intent.model, intent.version)) as files:
            signatures.check(f"{intent.model} version {intent.version}", files.folder)
            return None
    except client.Unreachable:
        raise
    except UserError as error:
        return str(error)


def _end(
    mlflow: "MlflowClient",
    run_id: str,
    intent: Intent,
    outcome: Outcome,
    aliases: Mapping[str, int],
    why: str | None = None,
) -> None:
    """Send the event, and close the attempt.

    In this order, so that after a crash between the two the event is sent again, under the same id, and never lost.
    """
    event = _EVENTS.get(outcome)
    if event and webhooks.is_configured():
        page = urls.run(mlflow.get_run(run_id).info.experiment_id, run_id)
        notification: webhooks.Event = {
            "event": event,
            "model": intent.model,
            "version": intent.version,
            "champion": aliases.get(CHAMPION),
            "previous": aliases.get(PREVIOUS),
            "by": intent.by,
            "reason": why or intent.reason or intent.why,
            "run_url": urls.address(page),
            "at": intent.at,
        }
        webhooks.notify(notification, run_id)
    ledger.end(mlflow, run_id, outcome, why)


def _moved(intent: Intent, champion: int | None) -> str:
    if intent.action == "promote":
        again = f"`reflux promote {intent.version}` compares it again"
    else:
        again = "see `reflux history`, and repeat `reflux rollback` if it is still wanted"
    return (
        f"The champion of {intent.model} is {describe_champion(champion)} by now, not "
        f"{describe_champion(intent.champion)}, so version {intent.version} was not touched: {again}."
    )
