"""The order of the ledger is that of the acts, whatever the hosts' clocks say."""

import time

import pytest
from mlflow import MlflowClient

from components.registry import client
from components.registry.history import history
from components.registry.ledger.commit import ChampionMoved, commit
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
