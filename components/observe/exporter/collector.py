"""Reflux's metrics in Prometheus' terms, read from MLflow when Prometheus asks for them."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from reflux.components.core.errors import UserError
from reflux.components.observe.exporter import snapshot
from reflux.components.observe.exporter.snapshot import Snapshot
from reflux.components.registry.ledger.ledger import Outcome

HELP = {
    "reflux_up": "1 if MLflow answered, 0 if it is away: then there is no other metric.",
    "reflux_champion_version": "The version in production.",
    "reflux_champion_age_seconds": "Time since the version in production was registered.",
    "reflux_champion_accuracy_ratio": "Accuracy of the version in production on the frozen test split, from 0 to 1.",
    "reflux_champion_size_bytes": "Size of the file that ships of the version in production.",
    "reflux_accuracy_gate_ratio": "registry.gates.accuracy.min of params.yaml, from 0 to 1.",
    "reflux_last_decision": "1 for the outcome of the last promotion or rollback that was tried, 0 for all others.",
    "reflux_last_decision_timestamp_seconds": "When it was tried, in seconds since 1970.",
    "reflux_open_attempts": "Attempts to promote or roll back that are open.",
    "reflux_open_attempt_age_seconds": "Time since the oldest of them began.",
    "reflux_last_failed_attempt_timestamp_seconds": "When one was last closed as failed, in seconds since 1970.",
    "reflux_aliases_moved_by_hand": "Aliases that are not where the ledger's last move has put them.",
    "reflux_events_waiting": "Events that a webhook's receiver has not taken, on the exporter's machine.",
    "reflux_events_refused": "Events of the last week that a receiver refused for what is in them.",
    "reflux_event_age_seconds": "Time since the oldest of them was written.",
    "reflux_last_retrain": "1 for the status of the last retrain that has ended, 0 for all others.",
    "reflux_last_retrain_end_timestamp_seconds": "When it ended, in seconds since 1970.",
    "reflux_last_retrain_duration_seconds": "How long it took.",
    "reflux_drift_detected": "1 if the last check of the present champion found that new images differ from its data.",
    "reflux_drift_distance": "How far new images were from the champion's data in that check, from 0 to 1.",
    "reflux_drift_new_images": "Images in that check that the champion's data did not have.",
    "reflux_drift_check_timestamp_seconds": "When it was made, in seconds since 1970.",
}
STATUSES = ("FINISHED", "FAILED", "KILLED")
CACHE_S = 15.0

Sample = tuple[str, Mapping[str, str], float]


class Exporter(Collector):
    """Collects the metrics of one model; several scrapes within ``CACHE_S`` seconds cost MLflow one.

    Args:
        project: ``project.name``.
        model_name: the registered model.
        accuracy_gate: ``registry.gates.accuracy.min``; None for no gate.
        note: takes a sentence on why MLflow can't be read, once until it can be.
        outboxes: the folders where events wait for their receivers.
    """

    def __init__(
        self,
        project: str,
        model_name: str,
        accuracy_gate: float | None,
        note: Callable[[str], None],
        outboxes: Sequence[Path] = (),
    ) -> None:
        self._project, self._model, self._gate, self._note = project, model_name, accuracy_gate, note
        self._outboxes = outboxes
        self._lock = threading.Lock()
        self._read_at = -CACHE_S
        self._snapshot: Snapshot | None = None
        self._problem = ""

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, or else the registry would ask MLflow before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at >= CACHE_S:
                self._snapshot = self._read()
                self._read_at = time.monotonic()
            return families(self._model, self._snapshot, self._gate, time.time())

    def _read(self) -> Snapshot | None:
        """Read MLflow; None if that fails for any reason."""
        before, self._problem = self._problem, ""
        try:
            return snapshot.read(self._project, self._model, self._outboxes)
        except UserError as error:
            self._problem = str(error)
        except Exception as error:  # MLflow's own, such as a login that is refused: the exporter outlives them
            first, *_ = str(error).splitlines() or [type(error).__name__]
            self._problem = f"MLflow can't be read ({first})."
        if self._problem != before:
            self._note(self._problem)
        return None


def families(model: str, state: Snapshot | None, accuracy_gate: float | None, now: float) -> list[Metric]:
    """The metrics of a model, each with its help; one that has no value is absent.

    Args:
        model: the registered model, a label of every metric.
        state: None if MLflow is away.
        accuracy_gate: the least accuracy that may ship; None for no gate.
        now: in seconds since 1970.
    """
    found: dict[str, list[Sample]] = {name: [] for name in HELP}
    for sample in samples(state, accuracy_gate, now):
        found[sample[0]].append(sample)
    made = []
    for name, text in HELP.items():
        family = GaugeMetricFamily(name, text)
        for _, labels, value in found[name]:
            family.add_sample(name, {"model": model, **labels}, value)
        made.append(family)
    return [family for family in made if family.samples]


def samples(state: Snapshot | None, accuracy_gate: float | None, now: float) -> Iterator[Sample]:
    """Name, further labels and value of each metric."""
    yield "reflux_up", {}, float(state is not None)
    if state is None:
        return
    if accuracy_gate is not None:
        yield "reflux_accuracy_gate_ratio", {}, accuracy_gate
    if champion := state.champion:
        yield "reflux_champion_version", {}, champion.version
        yield "reflux_champion_age_seconds", {}, max(0.0, now - champion.registered_at)
        if champion.accuracy is not None:
            yield "reflux_champion_accuracy_ratio", {}, champion.accuracy
        if champion.size_bytes is not None:
            yield "reflux_champion_size_bytes", {}, champion.size_bytes
    if decision := state.decision:
        for outcome in get_args(Outcome):
            yield "reflux_last_decision", {"outcome": outcome}, float(outcome == decision.outcome)
        yield "reflux_last_decision_timestamp_seconds", {}, decision.at
    yield from _open_questions(state, now)
    if retrain := state.retrain:
        for status in STATUSES:
            yield "reflux_last_retrain", {"status": status}, float(status == retrain.status)
        yield "reflux_last_retrain_end_timestamp_seconds", {}, retrain.ended_at
        yield "reflux_last_retrain_duration_seconds", {}, retrain.duration_s
    if drift := state.drift:
        yield "reflux_drift_detected", {}, float(drift.differs)
        yield "reflux_drift_new_images", {}, drift.new_images
        yield "reflux_drift_check_timestamp_seconds", {}, drift.at
        for compared, distance in drift.distances.items():
            yield "reflux_drift_distance", {"compared": compared}, distance


def _open_questions(state: Snapshot, now: float) -> Iterator[Sample]:
    """What the registry leaves to a person: attempts, aliases and events."""
    if attempts := state.attempts:
        yield "reflux_open_attempts", {}, len(attempts.opened)
        if attempts.opened:
            yield "reflux_open_attempt_age_seconds", {}, max(0.0, now - min(attempts.opened))
        if attempts.failed_at is not None:
            yield "reflux_last_failed_attempt_timestamp_seconds", {}, attempts.failed_at
        if attempts.by_hand is not None:
            yield "reflux_aliases_moved_by_hand", {}, attempts.by_hand
    yield "reflux_events_waiting", {}, state.events.waiting
    yield "reflux_events_refused", {}, state.events.refused
    if state.events.oldest is not None:
        yield "reflux_event_age_seconds", {}, max(0.0, now - state.events.oldest)
