"""The history of a model: the ledger's attempts, compared with the registry's present aliases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from reflux.components.registry import client
from reflux.components.registry.client import CHAMPION, PREVIOUS, describe_champion
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.commit import reconcile
from reflux.components.registry.ledger.ledger import MOVED, Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOOKS = 5


@dataclass(frozen=True)
class History:
    """The history of a model.

    Attributes:
        since: the attempt that made it the champion; None if the ledger has none.
        by_hand: a sentence for each alias that was moved without the ledger.
        entries: every attempt, newest first.
        undecided: the versions without an attempt, newest first.
    """

    model: str
    champion: int | None
    previous: int | None
    since: Entry | None
    by_hand: list[str]
    entries: list[Entry]
    undecided: list[int]


def history(project: str, model_name: str) -> History:
    """Read a model's history, after settling attempts that were broken off.

    Raises:
        UserError: the model is not registered.
        Unreachable: MLflow does not answer.
    """
    mlflow = client.connect()
    with client.translate_errors():
        aliases, entries, is_settled = _now(mlflow, project, model_name)
        versions = [int(version.version) for version in client.versions(mlflow, model_name)]
    moves = [entry for entry in entries if entry.outcome in MOVED]
    champion = aliases.get(CHAMPION)
    return History(
        model=model_name,
        champion=champion,
        previous=aliases.get(PREVIOUS),
        since=moves[0] if moves and moves[0].version == champion else None,
        by_hand=by_hand(moves, aliases) if is_settled else [],
        entries=entries,
        undecided=sorted(set(versions) - {entry.version for entry in entries}, reverse=True),
    )


def _now(mlflow: "MlflowClient", project: str, model_name: str) -> tuple[dict[str, int], list[Entry], bool]:
    """The aliases and the attempts, and whether they are of one moment: other processes may promote meanwhile."""
    for _ in range(_LOOKS):
        reconcile(mlflow, project, model_name)  # waits for whom it finds at work
        aliases = client.aliases(mlflow, model_name)
        is_open = ledger.is_open(mlflow, project, model_name)  # before the entries: one that ends now is among them
        entries = ledger.entries(mlflow, project, model_name)
        if not is_open and client.aliases(mlflow, model_name) == aliases:
            return aliases, entries, True
    return aliases, entries, False


def by_hand(moves: Sequence[Entry], aliases: Mapping[str, int]) -> list[str]:
    """A sentence for each alias that is, or was, not where the ledger's moves (newest first) had put it."""
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if not moves:
        return [f"Version {champion} became champion without an entry in the ledger."] if champion else []
    last, sentences = moves[0], []
    moved = f"the ledger's last move, by {last.by} at {last.at:%Y-%m-%d %H:%M} UTC,"
    if champion != last.version:
        sentences.append(
            f"The alias champion was moved by hand: it is {describe_champion(champion)}, where {moved} put version "
            f"{last.version}."
        )
    if previous != last.champion:
        sentences.append(
            f"The alias previous was moved by hand: it is {describe_champion(previous)}, where {moved} put "
            f"{describe_champion(last.champion)}."
        )
    for newer, older in pairwise(moves):
        if newer.champion != older.version:
            sentences.append(
                f"The alias champion was moved by hand, from version {older.version} to "
                f"{describe_champion(newer.champion)}, between {older.at:%Y-%m-%d %H:%M} and "
                f"{newer.at:%Y-%m-%d %H:%M} UTC."
            )
    return sentences
