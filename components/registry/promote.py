"""Decide on a version and act on it: the alias ``champion`` moves as carefully as a commit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.core.artifacts import read_json, write_json
from components.core.errors import UserError
from components.core.params.sections import Params
from components.registry import client
from components.registry.client import CHAMPION, PREVIOUS
from components.registry.history import seen
from components.registry.ledger import ledger
from components.registry.ledger import record as audit
from components.registry.ledger.commit import ChampionMoved, commit, overtaken, reconcile
from components.registry.ledger.ledger import Intent
from components.registry.ledger.record import APPROVAL, APPROVED, AWAITED, DECISION, ROLLBACK_NOTE, Grounds
from components.registry.policy.decision import Decision, Policy, decide
from components.registry.policy.gates import Bounds
from components.registry.versions import integrity, scoring, smoke
from components.registry.versions.files import EVALUATION, evaluation, fetched

if TYPE_CHECKING:
    from mlflow import MlflowClient

Approval = Literal["auto", "human"]

_TRIES = 3


@dataclass(frozen=True)
class PromotionResult:
    """What became of a version.

    Attributes:
        version: its number.
        decision: the verdict.
        outcome: what came of it, as in the ledger.
        promoted: whether it is the champion, by this decision or one before it.
        moved: whether this call moved the champion.
        existing: whether the decision had been taken before, and everything was left as it was.
        champion: the champion's version now, if any.
        previous: the version before it, if any.
        record: the content of ``decision.json``.
    """

    version: int
    decision: Decision
    outcome: ledger.Outcome
    promoted: bool
    moved: bool
    existing: bool
    champion: int | None
    previous: int | None
    record: dict[str, Any]


def terms(params: Params) -> dict[str, Any]:
    """What a decision takes from ``params.yaml``, as ``challenge`` names it."""
    return {
        "project": params.project.name,
        "model_name": params.registry.model_name,
        "policy": Policy.of(params.registry),
        "resamples": params.evaluate.bootstrap,
        "seed": params.seed,
    }


def challenge(
    artifacts: Path,
    project: str,
    model_name: str,
    version: int,
    policy: Policy,
    resamples: int,
    seed: int,
    who: str | None = None,
    reason: str = "",
    again: bool = False,
    expected: int | None = None,
    approval: Approval = "auto",
) -> PromotionResult:
    """Score a version and the champion now, decide, promote if the decision says so, and write everything down.

    The decision is taken without the lock, as scoring takes seconds, and carried out under it if the champion still is
    the one it was compared with; else it is taken again. When nothing that it rests on has changed since it was taken,
    it is found again and nothing is touched.

    Args:
        artifacts: the pipeline's output folder, for the frozen test split and ``promote/decision.json``.
        project: the project's name; its ledger takes every decision.
        model_name: the registered model.
        version: the challenger's number.
        policy: what it is judged by.
        resamples: bootstrap samples.
        seed: of the bootstrap.
        who: recorded as the author; ``user@host`` by default.
        reason: recorded with it.
        again: judge it again, and promote a version that was rolled back before.
        expected: the champion that the caller knows, 0 for none; with another one nothing is decided.
        approval: with ``human`` a validated version awaits ``approve``.

    Raises:
        UserError: a file is missing, was changed, or does not score what its evaluation says.
        ChampionMoved: the champion is not the expected one, or moved again and again while this was deciding.
        Unreachable: MLflow does not answer; the champion is untouched, or the next command finishes what was begun.
    """
    grounds = Grounds(policy, resamples, seed, approval)
    author = who or client.whoami()
    mlflow = client.connect()
    reconcile(mlflow, project, model_name)
    tries = _TRIES
    while True:
        tries -= 1
        try:
            with client.translate_errors():
                return _challenge_once(
                    mlflow, artifacts, project, model_name, version, grounds, author, reason, again, expected
                )
        except ChampionMoved:
            if not tries or expected is not None:
                raise


def approve(project: str, model_name: str, version: int, reason: str, who: str | None = None) -> PromotionResult:
    """Promote a version that awaits approval; who and why is recorded.

    What a person approves is the decision they have seen, so it is carried out as it was recorded, if the champion
    still is the one it compared with and the file and its figures are those that it judged. The data is not needed.

    Raises:
        UserError: it awaits no approval, no reason is given, the file or its figures were changed, or it fails the
            smoke test.
        ChampionMoved: the champion is another one by now; ``challenge`` decides again.
        Unreachable: MLflow does not answer; the champion is untouched, or the next command finishes what was begun.
    """
    if not reason.strip():
        raise UserError(f"An approval is recorded with its reason: `reflux approve {version} --reason …`.")
    by, at = who or client.whoami(), audit.now()
    mlflow = client.connect()
    reconcile(mlflow, project, model_name)
    with client.translate_errors():
        found = client.version(mlflow, model_name, version)
        if found.tags.get(APPROVAL) != AWAITED:
            given = ", as it has been approved" if found.tags.get(APPROVAL) == APPROVED else ""
            raise UserError(f"{model_name} version {version} awaits no approval{given}: see `reflux history`.")
        record = audit.recorded(found)
        if record is None:
            raise UserError(
                f"The decision on {model_name} version {version} is gone from MLflow: `reflux promote {version}` takes "
                "it again."
            )
        record |= {"outcome": ledger.PROMOTED}
        with fetched(found) as files:
            metrics = evaluation(found, files)
            integrity.check(mlflow, found, metrics)
            tried = smoke.check(files, metrics.get("probe_sha256"), _slowest(record["policy"]["gates"]))
            if not tried.passed:
                raise UserError(f"{model_name} version {version} is not promoted: {tried.sentence}")
            dataset = read_json(files.folder / EVALUATION / "dataset.json")["name"]
            key = found.tags["gate.key"]
            intent = audit.intent(project, found, record, metrics, files.metadata, dataset, by, reason, at, key)
        approval = {APPROVAL: APPROVED, "approval.by": by, "approval.reason": reason}
        tags = {str(version): {**intent.tags[str(version)], **approval}}
        after = commit(mlflow, project, replace(intent, tags=tags))
        return _outcome(record, moved=True, existing=False, aliases=after)


def _challenge_once(
    mlflow: "MlflowClient",
    artifacts: Path,
    project: str,
    model_name: str,
    number: int,
    grounds: Grounds,
    who: str,
    reason: str,
    again: bool,
    expected: int | None,
) -> PromotionResult:
    found = client.version(mlflow, model_name, number)
    before = client.aliases(mlflow, model_name)
    champion = before.get(CHAMPION)
    at = audit.now()
    if expected is not None and (champion or 0) != expected:
        late = Intent("promote", model_name, number, ledger.OVERTAKEN, who, reason, at, expected or None, None, "", "")
        raise overtaken(mlflow, project, late, champion)
    dataset = read_json(artifacts / "ingest" / "dataset.json")
    key = grounds.key(found.tags, dataset["fingerprints"]["test"])
    path = artifacts / DECISION
    # A person's second `reflux promote` of the champion has nothing to do; any other version is judged again.
    if (not again or champion == number) and (known := audit.taken(found, key, champion)):
        if not path.is_file() or read_json(path) != known:
            write_json(path, known)
        return _outcome(known, moved=False, existing=True, aliases=before)

    with fetched(found) as challenger:
        metrics = scoring.evaluation(challenger, found, dataset)
        integrity.check(mlflow, found, metrics)
        comparison = scoring.against_champion(
            mlflow, artifacts, found, challenger, metrics, champion, dataset, grounds.resamples, grounds.seed
        )
        rolled_back = None if again else found.tags.get(ROLLBACK_NOTE)
        uses, best = seen(ledger.of_split(mlflow, project, dataset["fingerprints"]["test"]), model_name)
        decision = decide(metrics, grounds.policy, comparison, uses, rolled_back, best)
        if decision.promote:
            decision = decision.tried(
                smoke.check(challenger, metrics.get("probe_sha256"), _slowest(grounds.policy.gates))
            )
    outcome = _came_of(decision, grounds.approval)
    record = audit.record(found, challenger.sha256, metrics, dataset, decision, outcome, champion, grounds, who, at)
    intent = audit.intent(project, found, record, metrics, challenger.metadata, dataset["name"], who, reason, at, key)
    after = commit(mlflow, project, intent)
    write_json(path, record)
    return _outcome(read_json(path), moved=outcome == ledger.PROMOTED, existing=False, aliases=after)


def _slowest(gates: Bounds) -> float | None:
    """The most that the gates allow for the latency, if anything."""
    return gates.get("latency_ms_p95", {}).get("max")


def _came_of(decision: Decision, approval: str) -> ledger.Outcome:
    """What a decision comes to."""
    if decision.status == "REJECTED":
        return ledger.REJECTED
    if decision.status == "UNKNOWN":
        return ledger.UNKNOWN
    if not decision.promote:  # the champion is this very file
        return ledger.UNCHANGED
    return ledger.AWAITING if approval == "human" else ledger.PROMOTED


def _outcome(record: Mapping[str, Any], moved: bool, existing: bool, aliases: Mapping[str, int]) -> PromotionResult:
    return PromotionResult(
        version=record["version"],
        decision=audit.verdict(record),
        outcome=record["outcome"],
        promoted=aliases.get(CHAMPION) == record["version"],
        moved=moved,
        existing=existing,
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        record=dict(record),
    )
