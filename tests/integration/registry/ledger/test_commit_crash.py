"""Kill -9 before each write of a commit: afterwards the registry is in the old state or in the new one."""

import os
import signal

import pytest
from mlflow import MlflowClient

from reflux.components.registry import client
from reflux.components.registry.ledger import ledger, lock
from reflux.components.registry.ledger.commit import ChampionMoved, commit, reconcile
from reflux.components.registry.promote import challenge
from reflux.components.registry.register import register
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import copies, die_at, flip_byte, forked, ready

pytestmark = pytest.mark.slow

ENOUGH = 80
ALIAS = "set_registered_model_alias"


def snapshot(home, name):
    """All that the registry and the ledger say."""
    mlflow = MlflowClient()
    versions = [(version.description, version.tags) for version in client.versions(mlflow, name)]
    return client.aliases(mlflow, name), versions, ledger.entries(mlflow, home.experiment, name)


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch):
    """Each killed holder leaves a lease that the next one has to see out."""
    monkeypatch.setattr(lock, "LEASE_S", 3.0)


def killed_at(write, work, method="") -> bool:
    """Whether ``work`` was killed before its ``write``-th write, or ``method``; False when it has fewer."""

    def dying():
        die_at(write, method)
        work()

    _, status = os.waitpid(forked(dying), 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


SCENARIOS = {
    "first promotion": ([], {"champion": 1}),
    "later promotion": ([2], {"champion": 3, "previous": 2}),
    "rollback": ([1, 2], {"champion": 1, "previous": 2}),
}


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param("first promotion", marks=pytest.mark.long),
        "later promotion",
        pytest.param("rollback", marks=pytest.mark.long),
    ],
)
def test_an_act_that_is_killed_before_any_of_its_writes_is_whole_after_reconcile(home, original, scenario):
    moves, wanted = SCENARIOS[scenario]
    mlflow, project = MlflowClient(), home.experiment
    for write in range(1, ENOUGH):
        name = f"{original.name}-{write}"
        copies(original, name, 3)
        for number, champion in zip(moves, [None, *moves], strict=False):
            commit(mlflow, project, ready(name, number, champion))
        old, before, _ = snapshot(home, name)

        def work(name=name):
            if scenario == "rollback":
                rollback(project, name, "worse")
            else:
                commit(MlflowClient(), project, ready(name, wanted["champion"], wanted.get("previous")))

        if not killed_at(write, work):
            break
        settled = reconcile(mlflow, project, name)

        aliases, versions, entries = snapshot(home, name)
        assert aliases in (old, wanted)
        assert not ledger.is_open(mlflow, project, name)
        # Without its record, logged right after it, an attempt is closed as failed.
        new = [entry.outcome for entry in entries[: len(entries) - len(moves)]]
        assert aliases == wanted or new in ([], ["failed"])
        if aliases == old:
            assert versions == before
        else:
            assert entries[0].outcome == ("rolled back" if scenario == "rollback" else "promoted")
            assert settled in ([], entries[:1])  # killed after it was closed, all was done
            tags = versions[(2 if scenario == "rollback" else wanted["champion"]) - 1][1]
            assert ("rollback.note" if scenario == "rollback" else "promoted.at") in tags
        assert reconcile(mlflow, project, name) == []
        assert snapshot(home, name) == (aliases, versions, entries)
        if scenario != "rollback":  # the same promotion once more: carried out now, or refused
            try:
                commit(mlflow, project, ready(name, wanted["champion"], wanted.get("previous")))
                assert aliases == old
            except ChampionMoved:
                assert aliases == wanted
            assert client.aliases(mlflow, name) == wanted
    assert 8 < write < ENOUGH - 1  # every write had its turn


@pytest.mark.long
def test_a_killed_promotion_is_finished_by_the_same_command_which_then_changes_nothing(home, model_name, make_grounds):
    grounds = make_grounds({"accuracy": {"min": 0.5}})

    def judge(name):
        return challenge(home.artifacts, home.experiment, name, 2, grounds)

    for write in range(1, ENOUGH):
        name = f"{model_name}-{write}"
        register(home.evaluation(right=150), name, home.experiment, home.lineage())
        challenge(home.artifacts, home.experiment, name, 1, grounds)
        register(home.evaluation(right=190), name, home.experiment, home.lineage())
        if not killed_at(write, lambda name=name: judge(name)):
            break
        assert judge(name).promoted
        whole = snapshot(home, name)
        assert whole[0] == {"challenger": 2, "champion": 2, "previous": 1}
        # Killed before its record was logged, an attempt is closed as failed and made anew.
        assert [entry.outcome for entry in whole[2]] in (["promoted"] * 2, ["promoted", "failed", "promoted"])
        assert judge(name).existing
        assert snapshot(home, name) == whole
    assert 10 < write < ENOUGH - 1


def test_a_target_whose_file_was_changed_before_the_act_was_finished_is_refused_and_previous_restored(home, model_name):
    mlflow, project = MlflowClient(), home.experiment
    for right in (150, 160, 190):
        register(home.evaluation(right), model_name, project, home.lineage())
    for number, champion in ((1, None), (2, 1)):
        commit(mlflow, project, ready(model_name, number, champion))
    # It dies when `previous` is set and `champion`, the last of all, is not.
    assert killed_at(2, lambda: commit(MlflowClient(), project, ready(model_name, 3, 2)), ALIAS)
    assert client.aliases(mlflow, model_name)["previous"] == 2
    flip_byte(model_name, 3, "model.onnx")

    (entry,) = reconcile(mlflow, project, model_name)

    assert entry.outcome == "refused"
    assert "version 3 was changed" in entry.why
    assert client.aliases(mlflow, model_name) == {"challenger": 3, "champion": 2, "previous": 1}


def test_an_act_that_a_hand_moved_on_from_before_it_was_finished_is_closed_as_overtaken(home, original):
    mlflow, project, name = MlflowClient(), home.experiment, f"{original.name}-x"
    copies(original, name, 3)
    commit(mlflow, project, ready(name, 1, None))
    assert killed_at(2, lambda: commit(MlflowClient(), project, ready(name, 2, 1)), ALIAS)
    mlflow.set_registered_model_alias(name, "champion", "3")

    (entry,) = reconcile(mlflow, project, name)

    assert entry.outcome == "overtaken"
    assert client.aliases(mlflow, name) == {"champion": 3, "previous": 1}
