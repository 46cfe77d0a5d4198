"""Which metrics there are of which state, and what happens when MLflow can't be read."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reflux.components.core.errors import UserError
from reflux.components.observe.exporter import collector, snapshot
from reflux.components.observe.exporter.collector import HELP, Exporter, families
from reflux.components.observe.exporter.snapshot import Attempts, Champion, Decision, Drift, Events, Retrain, Snapshot

STATE = Snapshot(
    Champion(version=3, registered_at=1000.0, accuracy=0.91, size_bytes=56_000.0),
    Decision("rejected", at=2000.0),
    Retrain("FAILED", ended_at=3000.0, duration_s=60.0),
    Drift(at=4000.0, differs=True, new_images=250.0, distances={"brightness": 0.3, "class balance": 0.1}),
    Attempts(opened=(4000.0, 4500.0), failed_at=2500.0, by_hand=1),
    Events(waiting=2, oldest=4900.0),
)
NOTHING = Snapshot(None, None, None, None)


def values(state: Snapshot | None, gate: float | None = 0.85) -> dict[tuple[str, str], float]:
    """Each sample by its name and its further label."""
    found = {}
    for family in families("shapes", state, gate, now=5000.0):
        assert family.documentation == HELP[family.name]
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model") == "shapes"
            found[sample.name, "".join(labels.values())] = sample.value
    return found


def test_each_figure_has_its_unit_and_an_enum_is_1_for_one_of_its_values_alone():
    found = values(STATE)
    assert {name for name, _ in found} == set(HELP)
    assert found["reflux_up", ""] == 1
    assert found["reflux_champion_age_seconds", ""] == 4000
    assert found["reflux_champion_accuracy_ratio", ""] == 0.91
    assert found["reflux_champion_size_bytes", ""] == 56_000
    assert found["reflux_accuracy_gate_ratio", ""] == 0.85
    assert found["reflux_last_retrain_duration_seconds", ""] == 60
    assert found["reflux_drift_distance", "class balance"] == 0.1
    assert found["reflux_open_attempts", ""] == 2
    assert found["reflux_open_attempt_age_seconds", ""] == 1000
    assert found["reflux_event_age_seconds", ""] == 100
    for name, value in (("reflux_last_decision", "rejected"), ("reflux_last_retrain", "FAILED")):
        assert {label: number for (each, label), number in found.items() if each == name and number} == {value: 1}


def test_what_there_is_not_yet_is_absent_and_never_zero():
    assert values(NOTHING, gate=None) == {
        ("reflux_up", ""): 1,
        ("reflux_events_waiting", ""): 0,
        ("reflux_events_refused", ""): 0,
    }
    unmeasured = Snapshot(Champion(1, 1000.0, None, None), None, None, None)
    assert {name for name, _ in values(unmeasured, gate=None)} == {
        "reflux_up",
        "reflux_champion_version",
        "reflux_champion_age_seconds",
        "reflux_events_waiting",
        "reflux_events_refused",
    }


def test_aliases_are_not_called_moved_by_hand_while_an_attempt_may_be_moving_them():
    at_work = Snapshot(None, None, None, None, Attempts(opened=(4000.0,), failed_at=None, by_hand=None))
    assert {name for name, _ in values(at_work)} & {"reflux_aliases_moved_by_hand"} == set()


def test_a_clock_behind_that_of_mlflow_makes_no_negative_age():
    ahead = Snapshot(Champion(1, 6000.0, None, None), None, None, None)
    assert values(ahead)["reflux_champion_age_seconds", ""] == 0


@pytest.mark.parametrize("error", [UserError("MLflow at http://a does not answer."), RuntimeError("403\nforbidden")])
def test_an_mlflow_that_cannot_be_read_is_one_metric_and_one_note_until_it_is_back(monkeypatch, error):
    def fail(*_: object) -> Snapshot:
        raise error

    registry, notes = CollectorRegistry(), []
    registry.register(Exporter("shapes", "shapes-student", 0.85, notes.append))
    monkeypatch.setattr(collector, "CACHE_S", 0.0)
    monkeypatch.setattr(snapshot, "read", fail)
    for _ in range(2):
        (family,) = text_string_to_metric_families(generate_latest(registry).decode())
        assert [(sample.name, sample.value) for sample in family.samples] == [("reflux_up", 0.0)]
    monkeypatch.setattr(snapshot, "read", lambda *_: STATE)
    assert "reflux_champion_version" in generate_latest(registry).decode()
    monkeypatch.setattr(snapshot, "read", fail)
    generate_latest(registry)
    (first, again) = notes
    assert first == again
    assert first in ("MLflow at http://a does not answer.", "MLflow can't be read (403).")


def test_scrapes_that_follow_each_other_ask_mlflow_once(monkeypatch):
    asked = []
    monkeypatch.setattr(snapshot, "read", lambda *names: asked.append(names) or NOTHING)
    registry = CollectorRegistry()
    registry.register(Exporter("shapes", "shapes-student", None, pytest.fail))
    assert not asked
    assert generate_latest(registry) == generate_latest(registry)
    assert asked == [("shapes", "shapes-student", ())]
