"""Decide on a version and carry the decision out: the alias ``champion`` moves as carefully as a commit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.client import CHAMPION, PREVIOUS
from reflux.components.registry.ledger import ledger, proof
from reflux.components.registry.ledger.commit import ChampionMoved, commit, overtaken, reconcile
from reflux.components.registry.ledger.ledger import Intent
from reflux.components.registry.ledger.record import (
    APPROVAL,
    APPROVED,
    AWAITED,
    DECISION,
    ROLLBACK_NOTE,
    Approval,
    Grounds,
    decision_record,
    promotion_intent,
    recorded_decision,
    unchanged_record,
    utc_now,
)
from reflux.components.registry.policy.decision import Decision, decide
from reflux.components.registry.policy.gates import Bounds
from reflux.components.registry.versions import device_reports, integrity, scoring, signatures, smoke
from reflux.components.registry.versions.files import EVALUATION, fetch_files, read_evaluation

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_ATTEMPTS = 3


@dataclass(frozen=True)
class PromotionResult:
    """The result of a decision on a version.

    Attributes:
        promoted: whether the version is the champion, by this decision or an earlier one.
        moved: whether this call moved the champion.
        existing: whether the decision had been taken before and nothing was changed.
        champion: the champion's version now, if any.
        previous: the version before it, if any.
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


def challenge(
    artifacts: Path,
    project: str,
    model_name: str,
    version: int,
    grounds: Grounds,
    who: str | None = None,
    reason: str = "",
    again: bool = False,
    expected: int | None = None,
) -> PromotionResult:
    """Score a version and the champion, decide, promote the version if the decision says so, and record everything.

    Scoring takes seconds, so the decision is taken without the lock. It is carried out under the lock if the champion
    is still the one that the version was compared with; otherwise it is taken again. If nothing that a recorded
    decision rests on has changed, that decision is returned and nothing is written.

    Args:
        artifacts: the pipeline's output folder, for the frozen test split and ``promote/decision.json``.
        project: the project's name; every decision goes into its ledger.
        model_name: the registered model.
        version: the challenger's number.
        grounds: the policy and the settings of the comparison.
        who: recorded as the author; ``user@host`` by default.
        reason: recorded with the decision.
        again: decide again, and promote a version even if it was rolled back before.
        expected: the champion that the caller knows, 0 for none; if it is another one, nothing is decided.

    Raises:
        UserError: a file is missing, was changed, does not match its signature, or does not score what its evaluation
            says.
        ChampionMoved: the champion is not the expected one, or moved repeatedly during the decision.
        Unreachable: MLflow does not answer; the champion is untouched, or the next command finishes what was begun.
    """
    author = client.identity(who)
    signatures.check_can_sign()
    mlflow = client.connect()
    reconcile(mlflow, project, model_name)
    attempts = stop_after_attempt(_ATTEMPTS if expected is None else 1)
    retrying = Retrying(retry=retry_if_exception_type(ChampionMoved), stop=attempts, reraise=True)
    work = partial(_challenge_once, mlflow, artifacts, project, model_name, version, grounds)
    return retrying(client.translate_errors()(work), author, reason, again, expected)


def approve(project: str, model_name: str, version: int, reason: str, who: str | None = None) -> PromotionResult:
    """Promote a version that awaits approval; the author and the reason are recorded.

    A person approves the decision that they have seen. So it is carried out as it was recorded, provided that the
    champion, the file and its figures are still those that it judged. The data is not needed.

    Raises:
        UserError: the version awaits no approval, no reason is given, the files, their signature or the figures were
            changed, or the version fails the smoke test.
        ChampionMoved: the champion is another one by now; ``challenge`` decides again.
        Unreachable: MLflow does not answer; the champion is untouched, or the next command finishes what was begun.
    """
    if not reason.strip():
        raise UserError(f"An approval is recorded with its reason: `reflux approve {version} --reason …`.")
    by, at = client.identity(who), utc_now()
    signatures.check_can_sign()
    mlflow = client.connect()
    reconcile(mlflow, project, model_name)
    with client.translate_errors():
        candidate = client.version(mlflow, model_name, version)
        record = _awaiting(mlflow, project, candidate)
        record |= {"outcome": ledger.PROMOTED, "approval": {"by": by, "reason": reason, "at": at}}
        with fetch_files(candidate) as files:
            signatures.check(f"{model_name} version {version}", files.folder)
            metrics = read_evaluation(candidate, files)
            integrity.check(mlflow, candidate, metrics)
            smoke_test = smoke.check(files, metrics.get("probe_sha256"), _max_latency(record["policy"]["gates"]))
            if not smoke_test.passed:
                raise UserError(f"{model_name} version {version} is not promoted: {smoke_test.sentence}")
            dataset = read_json(files.folder / EVALUATION / "dataset.json")["name"]
            key = candidate.tags["gate.key"]
            intent = promotion_intent(project, candidate, record, metrics, files.metadata, dataset, by, reason, at, key)
        approval = {APPROVAL: APPROVED, "approval.by": by, "approval.reason": reason}
        tags = {str(version): {**intent.tags[str(version)], **approval}}
        aliases = commit(mlflow, project, replace(intent, tags=tags))
        return _result(record, moved=True, existing=False, aliases=aliases)


def _awaiting(mlflow: "MlflowClient", project: str, version: "ModelVersion") -> dict[str, Any]:
    """The recorded decision that a version awaits approval by.

    Raises:
        UserError: it awaits none, or its record does not prove the decision.
    """
    record = proof.decided(mlflow, project, version)
    outcome, tag = record["outcome"], version.tags.get(APPROVAL)
    if outcome == ledger.AWAITING:
        return record
    why = ", as it has been approved" if "approval" in record else f": its recorded decision is {outcome}"
    edited = f", and its tag {APPROVAL}, {tag}, was edited in MLflow" if tag == AWAITED else ""
    raise UserError(f"{version.name} version {version.version} awaits no approval{why}{edited}: see `reflux history`.")


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
    version = client.version(mlflow, model_name, number)
    aliases = client.aliases(mlflow, model_name)
    champion = aliases.get(CHAMPION)
    at = utc_now()
    if expected is not None and (champion or 0) != expected:
        late = Intent("promote", model_name, number, ledger.OVERTAKEN, who, reason, at, expected or None, None, "", "")
        raise overtaken(mlflow, project, late, champion)
    dataset = read_json(artifacts / "ingest" / "dataset.json")
    reports = device_reports.newest(mlflow, project, version, grounds.policy.gates)
    key = grounds.key(version.tags, dataset["fingerprints"]["test"], reports)
    path = artifacts / DECISION
    # `reflux promote` of the present champion changes nothing; any other version that a person names is judged again.
    if (not again or champion == number) and (known := unchanged_record(mlflow, project, version, key, champion)):
        if not path.is_file() or read_json(path) != known:
            write_json(path, known)
        return _result(known, moved=False, existing=True, aliases=aliases)

    with fetch_files(version) as challenger:
        signatures.check(f"{model_name} version {number}", challenger.folder)
        metrics = scoring.own_evaluation(challenger, version, dataset)
        integrity.check(mlflow, version, metrics)
        comparison = scoring.compare_with_champion(
            mlflow, artifacts, version, challenger, metrics, champion, dataset, grounds.resamples, grounds.seed
        )
        rolled_back = None if again else version.tags.get(ROLLBACK_NOTE)
        attempts = ledger.of_split(mlflow, project, dataset["fingerprints"]["test"])
        uses, best = ledger.summarize_split(attempts, model_name)
        decision = decide(metrics, grounds.policy, comparison, uses, rolled_back, best, reports)
        if decision.promote:
            smoke_test = smoke.check(challenger, metrics.get("probe_sha256"), _max_latency(grounds.policy.gates))
            decision = decision.with_smoke_test(smoke_test)
    outcome = _outcome(decision, grounds.approval)
    sha256, names = challenger.sha256, challenger.metadata
    record = decision_record(project, version, sha256, metrics, dataset, decision, outcome, champion, grounds, who, at)
    intent = promotion_intent(project, version, record, metrics, names, dataset["name"], who, reason, at, key)
    aliases = commit(mlflow, project, intent)
    write_json(path, record)
    return _result(read_json(path), moved=outcome == ledger.PROMOTED, existing=False, aliases=aliases)


def _max_latency(gates: Bounds) -> float | None:
    """The gate's limit on the latency of this machine, if there is one."""
    bound = gates.get("latency_ms_p95", {})
    return None if bound.get("device") else bound.get("max")


def _outcome(decision: Decision, approval: Approval) -> ledger.Outcome:
    if decision.status == "REJECTED":
        return ledger.REJECTED
    if decision.status == "UNKNOWN":
        return ledger.UNKNOWN
    if not decision.promote:  # the champion is this very file
        return ledger.UNCHANGED
    return ledger.AWAITING if approval == "human" else ledger.PROMOTED


def _result(record: Mapping[str, Any], moved: bool, existing: bool, aliases: Mapping[str, int]) -> PromotionResult:
    return PromotionResult(
        version=record["version"],
        decision=recorded_decision(record),
        outcome=record["outcome"],
        promoted=aliases.get(CHAMPION) == record["version"],
        moved=moved,
        existing=existing,
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        record=dict(record),
    )
