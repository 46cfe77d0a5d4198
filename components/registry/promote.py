"""Decide on a version and act on it: the alias ``champion`` moves as carefully as a commit."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.core.artifacts import read_json, write_json
from components.core.errors import UserError
from components.core.shards import Shard, open_shard
from components.registry import describe, server
from components.registry.candidate import lineage_key
from components.registry.gates import ChampionEvaluation, Decision, Reason, compare, decide
from components.registry.server import CHAMPION, PREVIOUS
from components.registry.shipped import EVALUATION, Version, fetched

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DECISION = Path("promote") / "decision.json"
ROLLBACK_NOTE = "rollback.note"

_TRIES = 3
_RUN_FOLDER = "promote"


class ChampionMoved(UserError):
    """Another promotion moved the champion after this one had compared with it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a version.

    Attributes:
        version: its number.
        decision: the verdict.
        promoted: whether it is the champion because of this decision.
        existing: whether the decision had been taken before, and everything was left as it was.
        champion: the champion's version now, if any.
        previous: the version before it, if any.
        record: the content of ``decision.json``.
    """

    version: int
    decision: Decision
    promoted: bool
    existing: bool
    champion: int | None
    previous: int | None
    record: dict[str, Any]


@dataclass(frozen=True)
class _Case:
    """All that one decision rests on."""

    gates: Mapping[str, Mapping[str, float]]
    margin: float
    resamples: int
    seed: int
    who: str
    again: bool

    def key(self, tags: Mapping[str, str], test_fingerprint: str) -> str:
        parts = [tags.get("lineage.key"), self.gates, self.margin, self.resamples, self.seed, test_fingerprint]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
    case = _Case(gates, margin, resamples, seed, who or server.whoami(), again)
    mlflow = server.client()
    with server.lock(model_name), server.speaking():
        tries = _TRIES
        while True:
            tries -= 1
            try:
                return _challenge_once(mlflow, artifacts, model_name, version, case, run_id)
            except ChampionMoved:
                if not tries:
                    raise


def _challenge_once(
    mlflow: "MlflowClient", artifacts: Path, model_name: str, number: int, case: _Case, run_id: str | None
) -> Outcome:
    found = server.version(mlflow, model_name, number)
    before = server.aliases(mlflow, model_name)
    champion = before.get(CHAMPION)
    dataset = read_json(artifacts / "ingest" / "dataset.json")
    key = case.key(found.tags, dataset["fingerprints"]["test"])
    path = artifacts / DECISION
    if (record := _taken(mlflow, found, key, champion)) and not case.again:
        if not path.is_file() or read_json(path) != record:
            write_json(path, record)
        return _outcome(record, existing=True, aliases=before)

    with fetched(found) as challenger:
        metrics = _evaluation(challenger, found, dataset)
        comparison = _compare(mlflow, artifacts, found, challenger, metrics, champion, dataset, case)
        rolled_back = None if case.again else found.tags.get(ROLLBACK_NOTE)
        decision = decide(metrics, case.gates, comparison, case.margin, rolled_back)
        record = _record(found, challenger, metrics, dataset, decision, champion, case)
    if decision.promote:
        promote(model_name, number, decision, champion, case.who)
        record["promoted"], record["acted_at"] = True, _now()
    after = server.aliases(mlflow, model_name)
    record["aliases"] = after
    write_json(path, record)
    act = f"Promoted at {record['acted_at']}." if decision.promote else _stays(champion, number)
    text = describe.version(metrics, challenger.metadata, dataset["name"], found.tags, decision, act)
    _note(mlflow, found, record, text, key, run_id or str(found.run_id), path)
    return _outcome(record, existing=False, aliases=after)


def promote(
    model_name: str, version: int, decision: Decision, expected_champion: int | None, who: str | None = None
) -> None:
    """Make a validated version the champion, and the champion the previous one.

    The champion is read again just before it is replaced, and both aliases just after; on any failure they are put
    back. MLflow has no compare-and-swap: within one checkout the lock of :func:`challenge` closes the gap, between
    hosts a gap of milliseconds remains.

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
    with server.speaking():
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
        note = {"promoted.at": _now(), "promoted.by": who or server.whoami(), "promoted.over": str(expected_champion)}
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


def _taken(mlflow: "MlflowClient", found: "ModelVersion", key: str, champion: int | None) -> dict[str, Any] | None:
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


def _evaluation(challenger: Version, found: "ModelVersion", dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The version's own metrics, which must be those it was registered with and of the present test split."""
    path = challenger.folder / EVALUATION / "metrics.json"
    name = f"{found.name} version {challenger.number}"
    if not path.is_file() or lineage_key(path, challenger.sha256) != found.tags.get("lineage.key"):
        raise UserError(f"The evaluation kept with {name} was changed since it was registered: evaluate it again.")
    metrics: dict[str, Any] = read_json(path)
    if metrics["test"]["fingerprint"] != dataset["fingerprints"]["test"]:
        raise UserError(f"{name} was evaluated on another test split than the present one: run `reflux run` first.")
    return metrics


def _compare(
    mlflow: "MlflowClient",
    artifacts: Path,
    found: "ModelVersion",
    challenger: Version,
    metrics: Mapping[str, Any],
    champion: int | None,
    dataset: Mapping[str, Any],
    case: _Case,
) -> ChampionEvaluation | None:
    """Score both now, on the same images; None without a champion."""
    test = open_shard(artifacts / "ingest" / "shards" / "test")
    if not len(test):
        raise UserError("The test split holds no images, so no model can be judged: give ingest a test split.")
    classes = dataset["classes"]
    predicted = _predicted(challenger, test, classes)
    _reproduces(metrics, float((predicted == test.labels).mean()), len(test))
    if champion is None:
        return None
    with fetched(server.version(mlflow, found.name, champion)) as incumbent:
        theirs = predicted if incumbent.sha256 == challenger.sha256 else _predicted(incumbent, test, classes)
        return compare(test.labels, predicted, theirs, champion, incumbent.sha256, case.resamples, case.seed)


def _predicted(version: Version, test: Shard, classes: list[str]) -> npt.NDArray[np.int64]:
    """Predicted classes [N] in the order of ``classes``; -1 for a class that the dataset no longer has."""
    order = np.array([classes.index(name) if name in classes else -1 for name in version.classes])
    return order[version.network().logits(test.images).argmax(axis=1)]


def _reproduces(metrics: Mapping[str, Any], accuracy: float, n: int) -> None:
    """Refuse figures that the file does not reproduce, but for a near-tie that another machine rounds otherwise."""
    claimed = metrics["shipped"]["onnx"].get("accuracy")
    if claimed is not None and abs(claimed - accuracy) > max(0.001, 1.5 / n):
        raise UserError(
            f"The ONNX file scores {accuracy:.4f} on the test split where its evaluation says {claimed:.4f}: "
            "evaluate it again (`reflux run`)."
        )


def _record(
    found: "ModelVersion",
    challenger: Version,
    metrics: Mapping[str, Any],
    dataset: Mapping[str, Any],
    decision: Decision,
    champion: int | None,
    case: _Case,
) -> dict[str, Any]:
    return {
        "model": found.name,
        "version": challenger.number,
        **asdict(decision),
        "promoted": False,
        "compared_with": champion,
        "margin": case.margin,
        "gates": {name: dict(bound) for name, bound in case.gates.items()},
        "figures": metrics["shipped"]["onnx"],
        "bootstrap": {"resamples": case.resamples, "seed": case.seed, "confidence": 0.95},
        "test": {"fingerprint": dataset["fingerprints"]["test"], "n": metrics["test"]["n"]},
        "artifact_sha256": challenger.sha256,
        "lineage": {k: found.tags[k] for k in sorted(found.tags) if k in describe.LINEAGE or k == "lineage.key"},
        "decided_at": _now(),
        "decided_by": case.who,
    }


def _note(
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


def _stays(champion: int | None, version: int) -> str:
    if champion is None:
        return "There is no champion yet."
    return "It is the champion already." if champion == version else f"The champion stays version {champion}."


def _outcome(record: dict[str, Any], existing: bool, aliases: Mapping[str, int]) -> Outcome:
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
        existing=existing,
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        record=record,
    )


def _file(found: "ModelVersion") -> str:
    return f"decision-v{int(found.version)}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
