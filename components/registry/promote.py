"""Decide on a version and act on it: the alias ``champion`` moves as carefully as a commit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.artifacts import read_json, write_json
from components.core.errors import UserError
from components.registry import audit, describe, scoring, server
from components.registry.audit import DECISION, PROMOTED_AT, PROMOTED_BY, PROMOTED_OVER, ROLLBACK_NOTE, Grounds
from components.registry.gates import ChampionEvaluation, Decision, Reason, decide
from components.registry.server import CHAMPION, PREVIOUS
from components.registry.shipped import fetched

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TRIES = 3


class ChampionMoved(UserError):
    """Another promotion moved the champion after this one had compared with it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a version.

    Attributes:
        version: its number.
        decision: the verdict.
        promoted: whether it was promoted, by this decision or before it.
        moved: whether this call moved the champion.
        existing: whether the decision had been taken before, and everything was left as it was.
        champion: the champion's version now, if any.
        previous: the version before it, if any.
        record: the content of ``decision.json``.
    """

    version: int
    decision: Decision
    promoted: bool
    moved: bool
    existing: bool
    champion: int | None
    previous: int | None
    record: dict[str, Any]


def challenge(
    artifacts: Path,
    model_name: str,
    version: int,
    gates: Mapping[str, Mapping[str, float]],
    margin: float,
    resamples: int,
    seed: int,
    run_id: str | None = None,
    who: str | None = None,
    again: bool = False,
) -> Outcome:
    """Score a version and the champion now, decide, promote if the decision says so, and write everything down.

    A rejected version stays registered, tagged and explained, and the champion stays. When nothing that the decision
    rests on has changed since it was taken, it is found again and nothing is touched.

    Args:
        artifacts: the pipeline's output folder, for the frozen test split and ``promote/decision.json``.
        model_name: the registered model.
        version: the challenger's number.
        gates: ``{figure: {"min": limit, "max": limit}}``.
        margin: the accuracy that may be lost to the champion.
        resamples: bootstrap samples.
        seed: of the bootstrap.
        run_id: the MLflow run that keeps ``decision.json``; the version's own by default.
        who: recorded as the author; ``user@host`` by default.
        again: promote a version that was rolled back before.

    Raises:
        UserError: a file is missing, was changed, or does not score what its evaluation says.
        ChampionMoved: the champion moved again and again while this was deciding.
        Unreachable: MLflow does not answer; the champion is untouched.
    """
    grounds = Grounds(gates, margin, resamples, seed)
    author = who or server.whoami()
    mlflow = server.client()
    with server.lock(model_name), server.speaking():
        tries = _TRIES
        while True:
            tries -= 1
            try:
                return _challenge_once(mlflow, artifacts, model_name, version, grounds, author, run_id, again)
            except ChampionMoved:
                if not tries:
                    raise


def _challenge_once(
    mlflow: "MlflowClient",
    artifacts: Path,
    model_name: str,
    number: int,
    grounds: Grounds,
    who: str,
    run_id: str | None,
    again: bool,
) -> Outcome:
    found = server.version(mlflow, model_name, number)
    before = server.aliases(mlflow, model_name)
    champion = before.get(CHAMPION)
    dataset = read_json(artifacts / "ingest" / "dataset.json")
    key = grounds.key(found.tags, dataset["fingerprints"]["test"])
    path = artifacts / DECISION
    if not again and (known := audit.taken(mlflow, found, key, champion)):
        if not path.is_file() or read_json(path) != known:
            write_json(path, known)
        return _outcome(known, moved=False, existing=True, aliases=before)

    with fetched(found) as challenger:
        metrics = scoring.evaluation(challenger, found, dataset)
        comparison = scoring.against_champion(
            mlflow, artifacts, found, challenger, metrics, champion, dataset, grounds.resamples, grounds.seed
        )
        rolled_back = None if again else found.tags.get(ROLLBACK_NOTE)
        decision = decide(metrics, grounds.gates, comparison, grounds.margin, rolled_back)
    record = audit.record(found, challenger.sha256, metrics, dataset, decision, champion, grounds, who)
    if decision.promote:
        promote(model_name, number, decision, champion, who)
        found = server.version(mlflow, model_name, number)
    after = server.aliases(mlflow, model_name)
    if after.get(CHAMPION) == number and PROMOTED_AT in found.tags:
        record |= {"promoted": True, "promoted_at": found.tags[PROMOTED_AT]}
    record["aliases"] = after
    write_json(path, record)
    record = read_json(path)
    act = audit.act(record, decision.promote, after.get(CHAMPION))
    text = describe.version(metrics, challenger.metadata, dataset["name"], found.tags, decision, act)
    audit.note(mlflow, found, record, text, key, run_id or str(found.run_id), path)
    return _outcome(record, moved=decision.promote, existing=False, aliases=after)


def promote(
    model_name: str, version: int, decision: Decision, expected_champion: int | None, who: str | None = None
) -> None:
    """Make a validated version the champion, and the champion the previous one.

    The champion is read again just before it is replaced, and both aliases just after; on any failure they are put
    back. MLflow has no compare-and-swap: within one checkout a lock closes the gap, between hosts a gap of
    milliseconds remains.

    Args:
        model_name: the registered model.
        version: the version to promote.
        decision: the verdict on it.
        expected_champion: the champion that the decision compared with; None for a first model.
        who: recorded as the author; ``user@host`` by default.

    Raises:
        UserError: the decision is not to promote, or the version's file was changed since its evaluation.
        ChampionMoved: the champion is another one by now.
        Unreachable: MLflow does not answer.
    """
    if not decision.promote:
        raise UserError(f"{model_name} version {version} is {decision.status}: it is not promoted.")
    mlflow = server.client()
    with server.lock(model_name), server.speaking():
        found = server.version(mlflow, model_name, version)
        with fetched(found):
            before = server.aliases(mlflow, model_name)
            if before.get(CHAMPION) != expected_champion:
                raise ChampionMoved(
                    f"The champion of {model_name} is version {before.get(CHAMPION)} by now, not {expected_champion} "
                    f"that version {version} was compared with: run `reflux promote {version}` to compare again."
                )
            server.tag(mlflow, found, {"gate.status": decision.status})
            move(mlflow, model_name, version, before)
        note = {PROMOTED_AT: audit.now(), PROMOTED_BY: who or server.whoami(), PROMOTED_OVER: str(expected_champion)}
        server.tag(mlflow, found, note)
        if ROLLBACK_NOTE in found.tags:
            mlflow.delete_model_version_tag(model_name, str(version), ROLLBACK_NOTE)


def move(mlflow: "MlflowClient", model_name: str, to: int, before: Mapping[str, int]) -> None:
    """Point ``previous`` at the present champion, then ``champion`` at a version; all or nothing.

    Raises:
        UserError: the registry did not keep what was written.
    """
    old = before.get(CHAMPION)
    wanted = {PREVIOUS: old, CHAMPION: to} if old is not None else {CHAMPION: to}
    try:
        for alias, number in wanted.items():
            server.point(mlflow, model_name, alias, number)
        kept = server.aliases(mlflow, model_name)
        if any(kept.get(alias) != number for alias, number in wanted.items()):
            raise ChampionMoved(f"The aliases of {model_name} were moved by another process at this moment: {kept}.")
    except ChampionMoved:
        raise  # another process's promotion is not ours to undo
    except BaseException:
        for alias in (CHAMPION, PREVIOUS):
            server.point(mlflow, model_name, alias, before.get(alias))
        raise


def _outcome(record: dict[str, Any], moved: bool, existing: bool, aliases: Mapping[str, int]) -> Outcome:
    champion = record["champion"]
    decision = Decision(
        status=record["status"],
        promote=record["promote"],
        first=record["first"],
        reasons=tuple(Reason(**reason) for reason in record["reasons"]),
        champion=ChampionEvaluation(**champion) if champion else None,
    )
    return Outcome(
        version=record["version"],
        decision=decision,
        promoted=record["promoted"],
        moved=moved,
        existing=existing,
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        record=record,
    )
