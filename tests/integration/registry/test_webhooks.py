"""Each outcome is sent to a real receiver, under one id."""

import json
import os
import signal
import time

import pytest
from mlflow import MlflowClient

from reflux.components.registry import webhooks
from reflux.components.registry.client import connect
from reflux.components.registry.ledger.commit import commit, reconcile
from reflux.components.registry.promote import approve
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import copies, forked, ready
from tests.receiver import Receiver


@pytest.fixture
def receiver(home, monkeypatch):
    receiver = Receiver()
    monkeypatch.setenv(webhooks.WEBHOOK_URL, f"http://127.0.0.1:{receiver.port}/")
    monkeypatch.setenv(webhooks.WEBHOOK_SECRET, "secret")
    yield receiver
    receiver.close()


def events_of(receiver, count: int) -> list[dict]:
    deadline = time.monotonic() + 30
    while len(receiver.got) < count or webhooks.waiting():
        assert time.monotonic() < deadline, receiver.got
        time.sleep(0.02)
    return [json.loads(body) for _, body in receiver.got]


def test_each_outcome_is_told_with_who_why_and_what_is_in_production(home, model_name, registered, judge, receiver):
    project = home.experiment
    judge(registered(170), who="ada@lab")
    judge(registered(100), who="ada@lab")
    judge(registered(190), approval="human", who="ada@lab")
    approve(project, model_name, 3, "seen on the new cameras", who="eve@lab")
    rollback(project, model_name, "worse on the new cameras", who="eve@lab")

    events = events_of(receiver, 5)

    assert [(event["event"], event["version"], event["champion"], event["previous"]) for event in events] == [
        ("promoted", 1, 1, None),
        ("rejected", 2, 1, None),
        ("awaiting approval", 3, 1, None),
        ("promoted", 3, 3, 1),
        ("rolled back", 1, 1, 3),
    ]
    assert "Accuracy 0.5 is below the minimum of 0.8." in events[1]["reason"]
    assert [event["by"] for event in events[2:4]] == ["ada@lab", "eve@lab"]
    assert [event["reason"] for event in events[3:]] == ["seen on the new cameras", "worse on the new cameras"]
    assert len({event["id"] for event in events}) == 5


def test_what_a_crash_cut_short_is_told_again_under_the_same_id(home, original, receiver, monkeypatch):
    name = f"{original.name}-copies"
    copies(original, name, 1)

    def dying():
        # The event is on disk, and the attempt is about to be closed. What is sent in the background would die with it.
        monkeypatch.setattr(webhooks, "send", lambda *_: None)
        monkeypatch.setattr(MlflowClient, "update_run", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        commit(connect(), home.experiment, ready(name, 1, None))

    _, status = os.waitpid(forked(dying), 0)
    assert os.WIFSIGNALED(status)
    assert len(webhooks.waiting()) == 1
    (entry,) = reconcile(connect(), home.experiment, name)

    events = events_of(receiver, 2)

    assert [event["event"] for event in events] == ["promoted", "promoted"]
    assert {event["id"] for event in events} == {entry.run_id}
