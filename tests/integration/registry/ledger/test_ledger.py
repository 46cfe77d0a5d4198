"""The ledger: its order, whatever the hosts' clocks say, its pages in MLflow, and what a test split has served."""

import time

import pytest
from mlflow import MlflowClient

from reflux.components.registry import client
from reflux.components.registry.history import history
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.commit import ChampionMoved, commit
from reflux.components.registry.policy.comparison import Best
from reflux.components.registry.register import register
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import copies, ready

HOUR_S = 3600


@pytest.fixture
def at(monkeypatch):
    """Puts this host's clock forward or back by some seconds, as MLflow's client reads it."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


def test_a_host_whose_clock_is_set_back_does_not_disorder_the_history(home, original, at):
    mlflow, name = MlflowClient(), f"{original.name}-clocks"
    copies(original, name, 3)
    commit(mlflow, home.experiment, ready(name, 1, None))
    at(-HOUR_S)
    commit(mlflow, home.experiment, ready(name, 2, 1))
    at(+HOUR_S)
    with pytest.raises(ChampionMoved):
        commit(mlflow, home.experiment, ready(name, 1, 1))
    at(-2 * HOUR_S)
    commit(mlflow, home.experiment, ready(name, 3, 2))

    past = history(home.experiment, name)

    assert [(entry.number, entry.version, entry.outcome) for entry in past.entries] == [
        (4, 3, "promoted"),
        (3, 1, "overtaken"),
        (2, 2, "promoted"),
        (1, 1, "promoted"),
    ]
    newest, _, second, first = past.entries
    assert newest.at < second.at < first.at
    assert (past.since, past.by_hand) == (newest, [])
    assert client.aliases(mlflow, name) == {"champion": 3, "previous": 2}


def test_attempts_that_an_older_release_did_not_number_are_the_oldest(home, original, at):
    mlflow, name = MlflowClient(), f"{original.name}-older"
    copies(original, name, 3)
    for number, champion in ((1, None), (2, 1)):
        commit(mlflow, home.experiment, ready(name, number, champion))
    for entry in history(home.experiment, name).entries:
        mlflow.delete_tag(entry.run_id, "promotion.number")
    at(-HOUR_S)
    commit(mlflow, home.experiment, ready(name, 3, 2))
    assert [(entry.number, entry.version) for entry in history(home.experiment, name).entries] == [
        (1, 3),
        (0, 2),
        (0, 1),
    ]


def test_each_model_has_its_own_numbers(home, original):
    mlflow = MlflowClient()
    for name in (f"{original.name}-a", f"{original.name}-b"):
        copies(original, name, 1)
        commit(mlflow, home.experiment, ready(name, 1, None))
        assert [entry.number for entry in history(home.experiment, name).entries] == [1]


def test_the_ledger_is_an_experiment_that_mlflows_own_pages_show(home, model_name, registered, judge):
    judge(registered(right=170))
    judge(registered(right=100))
    mlflow = MlflowClient()
    experiment = mlflow.get_experiment_by_name("clothes/promotions")
    runs = mlflow.search_runs([experiment.experiment_id], f"tags.`promotion.model` = '{model_name}'")
    assert [(run.info.run_name, run.info.status) for run in runs] == [
        ("v2 rejected", "FINISHED"),
        ("v1 promoted", "FINISHED"),
    ]
    rejected = runs[0].data
    assert rejected.tags["mlflow.note.content"].startswith(
        f"**Version 2 rejected** by {client.whoami()}. The champion stays"
    )
    assert "- **missed**: Accuracy 0.5 is below the minimum of 0.8." in rejected.tags["mlflow.note.content"]
    assert not [tag for tag in rejected.tags if tag.startswith("promotion.intent")]
    assert rejected.metrics["accuracy"] == 0.5


def test_each_decision_of_a_test_split_is_counted(home, model_name, registered, judge):
    split = "9" * 64
    assert ledger.of_split(MlflowClient(), home.experiment, split) == []
    for right in (170, 180):
        home.evaluation(right, fingerprint=split)
        judge(register(home.artifacts, model_name, home.experiment, home.lineage()).version)
    rollback(home.experiment, model_name, "worse")
    uses, best = ledger.summarize_split(ledger.of_split(MlflowClient(), home.experiment, split), model_name)
    assert (uses, best) == (2, Best(2, 0.9))
    assert ledger.summarize_split(ledger.of_split(MlflowClient(), home.experiment, split), "another model") == (2, None)
    assert ledger.of_split(MlflowClient(), "a project without decisions", split) == []


def test_a_champion_that_was_scored_anew_on_a_new_test_split_counts_among_its_best(home, model_name, registered, judge):
    judge(registered(right=190))
    home.evaluation(right=170, fingerprint="8" * 64)
    judge(register(home.artifacts, model_name, home.experiment, home.lineage()).version)
    attempts = ledger.of_split(MlflowClient(), home.experiment, "8" * 64)
    assert ledger.summarize_split(attempts, model_name) == (1, Best(1, 0.95))
