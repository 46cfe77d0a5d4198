import threading

import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry import history as history_module
from reflux.components.registry.history import history
from reflux.components.registry.ledger.commit import commit
from tests.integration.registry.faults import copies, ready, registered_file


def test_history_has_every_attempt_newest_first_with_who_why_and_where_from(home, model_name, registered, judge):
    judge(registered(right=170), who="nightly")
    judge(registered(right=181), gates={"accuracy": {"min": 0.95}})
    judge(registered(right=190), reason="for the new cameras")
    registered(right=182)

    past = history(home.experiment, model_name)

    assert [(entry.version, entry.outcome, entry.champion) for entry in past.entries] == [
        (3, "promoted", 1),
        (2, "rejected", 1),
        (1, "promoted", None),
    ]
    newest, rejected, first = past.entries
    assert (past.champion, past.previous, past.since, past.by_hand, past.undecided) == (3, 1, newest, [], [4])
    assert (newest.reason, first.by) == ("for the new cameras", "nightly")
    assert rejected.why == "Accuracy 0.905 is below the minimum of 0.95."
    assert newest.figures["accuracy"] == 0.95
    assert newest.figures["champion/difference"] == pytest.approx(0.1)
    where_from = {
        "artifact_sha256": sha256_file(registered_file(model_name, 3, "model.onnx")),
        "dvc.data_md5": "b" * 32 + ".dir",
        "git.sha": "c" * 40,
        "params.sha256": "a" * 64,
        "prefect.flow_run_id": "flow-1",
        "run_id": home.run_id,
        "test_fingerprint": "f" * 64,
    }
    assert newest.lineage.items() >= where_from.items()
    with pytest.raises(UserError, match="No model is registered as nothing"):
        history(home.experiment, "nothing")


@pytest.mark.parametrize(
    ("moment", "nth"),
    [
        *(("search_registered_models", nth) for nth in (1, 2)),
        *((method, nth) for method in ("search_runs", "get_experiment_by_name") for nth in (1, 2, 3)),
    ],
)
def test_a_promotion_meanwhile_is_not_a_move_by_hand(home, original, monkeypatch, moment, nth):
    name = f"{original.name}-meanwhile"
    copies(original, name, 2)
    commit(MlflowClient(), home.experiment, ready(name, 1, None))
    real, calls = getattr(MlflowClient, moment), []

    def first_promote(*args, **kwargs):
        calls.append(1)
        if len(calls) == nth:
            commit(MlflowClient(), home.experiment, ready(name, 2, 1))
        return real(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, moment, first_promote)
    past = history(home.experiment, name)
    assert len(calls) >= nth
    assert (past.champion, past.previous, past.by_hand) == (2, 1, [])
    assert [entry.version for entry in past.entries] == [2, 1]


def test_a_promotion_under_way_is_waited_for(home, original, monkeypatch):
    name = f"{original.name}-under-way"
    copies(original, name, 2)
    commit(MlflowClient(), home.experiment, ready(name, 1, None))
    real, begun, seen = client.set_alias, threading.Event(), threading.Event()

    def set_alias(*args):
        real(*args)
        begun.set()
        seen.wait(30)

    def look(*args, real=history_module.reconcile):
        if not begun.is_set():
            promotion.start()
            begun.wait(30)
        else:
            seen.set()
        return real(*args) if seen.is_set() else []

    promotion = threading.Thread(target=commit, args=(MlflowClient(), home.experiment, ready(name, 2, 1)))
    monkeypatch.setattr(client, "set_alias", set_alias)
    monkeypatch.setattr(history_module, "reconcile", look)
    past = history(home.experiment, name)
    promotion.join()
    assert (past.champion, past.previous, past.by_hand) == (2, 1, [])


def test_an_alias_that_was_moved_by_hand_is_named(home, model_name, registered, judge):
    for right in (170, 180, 190):
        judge(registered(right))
    mlflow_client = MlflowClient()
    mlflow_client.set_registered_model_alias(model_name, "champion", "1")
    mlflow_client.set_registered_model_alias(model_name, "previous", "3")

    past = history(home.experiment, model_name)

    assert past.since is None
    assert [sentence.partition(", by")[0] for sentence in past.by_hand] == [
        "The alias champion was moved by hand: it is version 1, where the ledger's last move",
        "The alias previous was moved by hand: it is version 3, where the ledger's last move",
    ]
    judge(registered(right=199))
    (sentence,) = history(home.experiment, model_name).by_hand
    assert sentence.startswith("The alias champion was moved by hand, from version 3 to version 1, between ")
