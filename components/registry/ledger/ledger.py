"""The ledger of promotions: a readable write-ahead log, one MLflow run per attempt in ``<project>/promotions``.

A run is created with the whole intent in its tags, in one transaction; from then on any process can finish it. It is
RUNNING while it is open, FINISHED when a decision was carried out (also a rejection), and FAILED when it could not be.

Attempts are numbered because hosts' clocks differ. An attempt that moves an alias takes its number under the model's
lock, so the number is its own; only an attempt that came too late, and so changes nothing, may share one.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from pydantic import TypeAdapter

from reflux.components.core.runtime import tracking
from reflux.components.registry import client
from reflux.components.registry.policy.comparison import Best
from reflux.components.registry.text.markdown import LINEAGE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Action = Literal["promote", "rollback"]
Outcome = Literal[
    "promoted", "rejected", "unknown", "unchanged", "awaiting approval", "rolled back", "overtaken", "refused", "failed"
]

PROMOTED: Outcome = "promoted"
REJECTED: Outcome = "rejected"
UNKNOWN: Outcome = "unknown"
UNCHANGED: Outcome = "unchanged"
AWAITING: Outcome = "awaiting approval"
ROLLED_BACK: Outcome = "rolled back"
OVERTAKEN: Outcome = "overtaken"
REFUSED: Outcome = "refused"
FAILED: Outcome = "failed"

MOVED = (PROMOTED, ROLLED_BACK)
NOT_CARRIED_OUT = (OVERTAKEN, REFUSED, FAILED)
DECISION = "decision.json"

_INTENT, _ID = "promotion.intent.", "promotion.id"
_COLUMN = 8000  # characters of a run's tag
_TAG_CHARACTERS = 7500
_NUMBER, _DIGITS = "promotion.number", 8  # with leading zeros, as MLflow orders tags as text
_OUTCOME, _ACTION, _MODEL, _VERSION = "promotion.outcome", "promotion.action", "promotion.model", "promotion.version"
_FROM, _PREVIOUS, _COMPARED = "promotion.from", "promotion.previous", "promotion.compared_with"
_BY, _REASON, _WHY = "promotion.by", "promotion.reason", "promotion.why"


@dataclass(frozen=True)
class Intent:
    """Everything that an attempt is to do; doing it twice has the effect of doing it once.

    Attributes:
        outcome: the outcome once it is carried out.
        reason: a person's reason; may be empty.
        at: time in UTC, ISO 8601.
        champion: the champion that it replaces or leaves, the one it was compared with; None for none.
        previous: the version before the champion; None for none.
        aliases: ``{alias: version}`` to set, in this order; empty if the champion stays.
        tags: ``{version: {tag: value}}`` to set, in this order; None deletes a tag.
        description: the version's new description; None leaves it.
        front: the registered model's new description; None leaves it.
        why: the cause of the outcome, in plain sentences.
        note: all of it for people, in Markdown.
        record: the content of ``decision.json``; None without a decision.
        id: a unique id, which reveals a request that was sent twice.
    """

    action: Action
    model: str
    version: int
    outcome: Outcome
    by: str
    reason: str
    at: str
    champion: int | None
    previous: int | None
    why: str
    note: str
    aliases: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    description: str | None = None
    front: str | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Damage:
    """An open attempt whose intent can't be read.

    Attributes:
        sentence: why, for people.
    """

    sentence: str


@dataclass(frozen=True)
class Entry:
    """One attempt in the ledger.

    Attributes:
        number: its place among the attempts on the model, from 1; 0 for one that an older release wrote.
        outcome: None while it is open.
        at: its beginning, in UTC.
        champion: the champion when it began.
    """

    run_id: str
    experiment_id: str
    number: int
    action: Action
    model: str
    version: int
    outcome: Outcome | None
    at: datetime
    by: str
    reason: str
    champion: int | None
    why: str
    lineage: Mapping[str, str]
    figures: Mapping[str, float]


def experiment(project: str) -> str:
    """The name of a project's ledger in MLflow."""
    return f"{project}/promotions"


def begin(mlflow: "MlflowClient", project: str, intent: Intent, outcome: Outcome | None = None) -> str:
    """Write an intent down in one transaction; returns the run's id.

    With an outcome the attempt ends at once, with nothing to do.
    """
    experiment_id = tracking.experiment_id(mlflow, experiment(project))
    newest = next(_runs(mlflow, project, _of(intent.model), at_once=1), None)
    number = 1 + (_entry(newest).number if newest else 0)
    text = json.dumps(asdict(intent)) if outcome is None else ""
    parts = [text[i : i + _TAG_CHARACTERS] for i in range(0, len(text), _TAG_CHARACTERS)]
    tags = {
        "run_kind": "promotion",
        "mlflow.user": intent.by,
        "mlflow.note.content": client.fit(intent.note, _COLUMN),
        _ID: intent.id,
        _NUMBER: f"{number:0{_DIGITS}}",
        _ACTION: intent.action,
        _MODEL: intent.model,
        _VERSION: str(intent.version),
        _FROM: _text(intent.champion),
        _PREVIOUS: _text(intent.previous),
        _BY: intent.by,
        _REASON: client.fit(intent.reason, _COLUMN),
        _WHY: client.fit(intent.why, _COLUMN),
        **intent.lineage,
        **{f"{_INTENT}{i}": part for i, part in enumerate(parts)},
    }
    if intent.record is not None:
        tags[_COMPARED] = _text(intent.champion)
    if outcome is not None:
        tags[_OUTCOME] = outcome
    name = f"v{intent.version} {intent.action}" if outcome is None else _name(intent.version, outcome)
    run = mlflow.create_run(experiment_id, tags=tags, run_name=name)
    return str(run.info.run_id)


def log_figures(mlflow: "MlflowClient", run_id: str, intent: Intent) -> None:
    """Log an attempt's figures."""
    from mlflow.entities import Metric

    at = int(datetime.fromisoformat(intent.at).timestamp() * 1000)
    if intent.figures:
        mlflow.log_batch(run_id, metrics=[Metric(key, value, at, 0) for key, value in intent.figures.items()])


def end(mlflow: "MlflowClient", run_id: str, outcome: Outcome, why: str | None = None) -> None:
    """Write down the outcome of an attempt, and its cause if it is not the intended one; then close it."""
    from mlflow.entities import RunTag

    version = _entry(mlflow.get_run(run_id)).version
    note = f"**Version {version} {outcome}.** {why}"
    cause = {} if why is None else {_WHY: why, "mlflow.note.content": client.fit(note, _COLUMN)}
    mlflow.update_run(run_id, name=_name(version, outcome))
    mlflow.log_batch(run_id, tags=[RunTag(key, value) for key, value in {_OUTCOME: outcome, **cause}.items()])
    close(mlflow, run_id, outcome)


def close(mlflow: "MlflowClient", run_id: str, outcome: Outcome) -> None:
    """Close an attempt whose outcome is written, and delete its intent."""
    mlflow.set_terminated(run_id, "FAILED" if outcome in NOT_CARRIED_OUT else "FINISHED")
    for tag in mlflow.get_run(run_id).data.tags:
        if tag.startswith(_INTENT):
            client.if_exists(mlflow.delete_tag, run_id, tag)  # gone if its answer was lost


def is_open(mlflow: "MlflowClient", project: str, model: str) -> bool:
    """Tell whether an attempt is open; without the lock it may be one that another process is carrying out."""
    return any(True for _ in _runs(mlflow, project, _open(model)))


def open_attempts(mlflow: "MlflowClient", project: str, model: str) -> list[tuple[str, Intent | Outcome | Damage]]:
    """List the open attempts, oldest first: each with its run, and its intent or the outcome that is written already.

    Only for the lock's holder, who alone writes and deletes intents.
    """
    runs = [*_runs(mlflow, project, _open(model))]
    return [(str(run.info.run_id), _intended(run.data.tags, model)) for run in reversed(runs)]


def _intended(tags: Mapping[str, str], model: str) -> Intent | Outcome | Damage:
    """Read what an attempt is to do, or how it ended; fields that a newer release writes are passed over."""
    if _OUTCOME in tags:
        return tags[_OUTCOME] if tags[_OUTCOME] in get_args(Outcome) else FAILED  # type: ignore[return-value]
    try:
        parts = sorted((tag for tag in tags if tag.startswith(_INTENT)), key=lambda tag: int(tag.rpartition(".")[2]))
        intent = TypeAdapter(Intent).validate_json("".join(tags[part] for part in parts))
    except ValueError:
        return Damage("What it was to do can't be read: someone edited its tags in MLflow. Nothing was moved.")
    if intent.model != model:
        return Damage(f"It is about the model {intent.model}: someone edited its tags in MLflow. Nothing was moved.")
    return intent


def is_twin(mlflow: "MlflowClient", project: str, run_id: str) -> bool:
    """Tell whether an attempt was written twice, because MLflow's answer was late or lost, and the other is closed."""
    own = mlflow.get_run(run_id).data.tags.get(_ID, "")
    if not own.isalnum():  # somebody edited it
        return False
    same = _runs(mlflow, project, f"tags.`{_ID}` = '{own}' AND attributes.status != 'RUNNING'")
    return any(run.info.run_id != run_id for run in same)


def _open(model: str) -> str:
    return f"{_of(model)} AND attributes.status = 'RUNNING'"


def entries(mlflow: "MlflowClient", project: str, model: str) -> list[Entry]:
    """Every attempt on a model, newest first."""
    return [_entry(run) for run in _runs(mlflow, project, _of(model))]


def newest(mlflow: "MlflowClient", project: str, model: str) -> Entry | None:
    """The last attempt on a model that has ended; None if there is none."""
    run = next(_runs(mlflow, project, f"{_of(model)} AND attributes.status != 'RUNNING'", at_once=1), None)
    return _entry(run) if run else None


def last_move(mlflow: "MlflowClient", project: str, model: str) -> Entry | None:
    """The last attempt that moved the champion; None if there is none."""
    moved = [
        next(_runs(mlflow, project, f"{_of(model)} AND tags.`{_OUTCOME}` = '{outcome}'", at_once=1), None)
        for outcome in MOVED
    ]
    return max(map(_entry, filter(None, moved)), key=lambda entry: (entry.number, entry.at), default=None)


def last_decision(mlflow: "MlflowClient", project: str, model: str, version: int) -> str | None:
    """The run of the last decision on a version that was carried out; None if there is none."""
    where = f"{_of(model)} AND tags.`{_VERSION}` = '{version}' AND tags.`{_ACTION}` = 'promote'"
    run = next(_runs(mlflow, project, f"{where} AND attributes.status = 'FINISHED'", at_once=1), None)
    return str(run.info.run_id) if run else None


def opened(mlflow: "MlflowClient", project: str, model: str) -> list[datetime]:
    """When each open attempt began; without the lock it may be one that another process is carrying out."""
    return [_began(run) for run in _runs(mlflow, project, _open(model))]


def last_failure(mlflow: "MlflowClient", project: str, model: str) -> datetime | None:
    """When an attempt was last closed as failed, however long before it began; None if none was."""
    failed = _runs(mlflow, project, f"{_of(model)} AND tags.`{_OUTCOME}` = '{FAILED}'")
    ended = [run.info.end_time for run in failed if run.info.end_time]
    return datetime.fromtimestamp(max(ended) / 1000, UTC) if ended else None


def entry(mlflow: "MlflowClient", run_id: str) -> Entry:
    """One attempt."""
    return _entry(mlflow.get_run(run_id))


def of_split(mlflow: "MlflowClient", project: str, test_fingerprint: str) -> list[Entry]:
    """Every attempt that a test split has served, on any model, newest first."""
    return [_entry(run) for run in _runs(mlflow, project, f"tags.test_fingerprint = '{test_fingerprint}'")]


def summarize_split(attempts: Iterable[Entry], model_name: str) -> tuple[int, Best | None]:
    """Count the decisions that a test split has served, whatever their outcome, and find the model's best champion.

    Args:
        attempts: every attempt that the split has served, on any model.
        model_name: the registered model. Its champions are those that were judged on the split, and those that were
            scored again on it to be compared with a challenger.
    """
    uses, champions = 0, list[Best]()
    for attempt in attempts:
        uses += attempt.action == "promote"
        if attempt.model == model_name and attempt.outcome == PROMOTED and "accuracy" in attempt.figures:
            champions.append(Best(attempt.version, attempt.figures["accuracy"]))
        if attempt.model == model_name and attempt.champion is not None and "champion/accuracy" in attempt.figures:
            champions.append(Best(attempt.champion, attempt.figures["champion/accuracy"]))
    return uses, max(champions, key=lambda champion: champion.accuracy, default=None)


def _of(model: str) -> str:
    return f"tags.`{_MODEL}` = '{model}'"


def _runs(mlflow: "MlflowClient", project: str, where: str, at_once: int = 1000) -> Iterator["Run"]:
    """The ledger's runs, newest first."""
    ledger = tracking.find_experiment(mlflow, experiment(project))
    order = [f"tags.`{_NUMBER}` DESC", "attributes.start_time DESC"]
    token = None
    while ledger is not None:
        page = mlflow.search_runs([ledger.experiment_id], where, max_results=at_once, order_by=order, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _number(tags: Mapping[str, str], tag: str) -> int | None:
    """Read a number; None where there is none, or somebody edited it."""
    value = tags.get(tag, "")
    return int(value) if value.isascii() and value.isdecimal() else None


def _entry(run: "Run") -> Entry:
    """Read an attempt; tags that somebody deleted or damaged are left out."""
    tags = run.data.tags
    return Entry(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        number=_number(tags, _NUMBER) or 0,
        action="rollback" if tags.get(_ACTION) == "rollback" else "promote",
        model=tags.get(_MODEL, ""),
        version=_number(tags, _VERSION) or 0,
        outcome=cast(Outcome | None, tags.get(_OUTCOME)) if run.info.status != "RUNNING" else None,
        at=_began(run),
        by=tags.get(_BY, "somebody"),
        reason=tags.get(_REASON, ""),
        champion=_number(tags, _FROM),
        why=tags.get(_WHY, ""),
        lineage={key: tags[key] for key in LINEAGE if key in tags},
        figures=dict(run.data.metrics),
    )


def _began(run: "Run") -> datetime:
    return datetime.fromtimestamp(run.info.start_time / 1000, UTC)


def _name(version: int, outcome: Outcome) -> str:
    return f"back to v{version}" if outcome == ROLLED_BACK else f"v{version} {outcome}"


def _text(version: int | None) -> str:
    return "none" if version is None else str(version)
