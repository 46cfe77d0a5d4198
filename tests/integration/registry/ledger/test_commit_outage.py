"""MLflow away before, during and after a commit: retried for a stated time, then reported, and never half done."""

import signal
import sqlite3
import threading
import time

import pytest
from mlflow import MlflowClient

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.history import by_hand
from reflux.components.registry.ledger import ledger, lock
from reflux.components.registry.ledger.commit import commit, reconcile
from reflux.flows.local.prefect_server import free_port
from tests.integration.registry.faults import copies, ready
from tests.servers import mlflow_server

pytestmark = pytest.mark.long

PROJECT = "clothes"


class Server:
    """An MLflow server that is stopped, killed and started again on the same address."""

    def __init__(self, folder, database: str) -> None:
        self._folder, self._database, self._port = folder, database, free_port()
        self.start()

    def start(self) -> None:
        self._context = mlflow_server(self._folder, self._database, self._port)
        self.running = self._context.__enter__()

    def end(self) -> None:
        self._context.__exit__(None, None, None)


@pytest.fixture
def away(tmp_path, mlflow_template, monkeypatch):
    database = tmp_path / "server.db"
    database.write_bytes(mlflow_template.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(lock, "LEASE_S", 8)
    # The files of these versions are nowhere, so that nobody can look at them.
    monkeypatch.setattr("reflux.components.registry.ledger.commit._broken", lambda *_: None)
    server = Server(tmp_path, f"sqlite:///{database}")
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.running.uri)
        mlflow = MlflowClient()
        mlflow.create_registered_model("clothes")
        for _ in range(2):
            mlflow.create_model_version("clothes", "s3://none/none")
        commit(mlflow, PROJECT, ready("clothes", 1, None))
        yield server
    finally:
        server.end()


def before_write(monkeypatch, method: str, nth: int, what) -> None:
    """Do ``what`` right before the ``nth`` call of a method of MLflow's client."""
    real, calls = getattr(MlflowClient, method), []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == nth:
            what()
        return real(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, method, call)


MOMENTS = {
    "before": ("create_run", 1),
    "before previous": ("set_registered_model_alias", 1),
    "before champion": ("set_registered_model_alias", 2),
    "after champion": ("set_model_version_tag", 1),
    "before the outcome": ("set_terminated", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_that_dies_is_said_in_time_and_the_next_command_finishes(away, monkeypatch, moment):
    monkeypatch.setattr(client, "PATIENCE_S", 3)
    mlflow = MlflowClient()
    with monkeypatch.context() as patch:
        before_write(patch, *MOMENTS[moment], away.end)
        began = time.monotonic()
        with pytest.raises(client.Unreachable, match="does not answer: start it"):
            commit(mlflow, PROJECT, ready("clothes", 2, 1))
        assert time.monotonic() - began < 120
    away.start()

    old, new = {"champion": 1}, {"champion": 2, "previous": 1}
    if moment == "before":
        assert client.aliases(mlflow, "clothes") == old
        assert reconcile(mlflow, PROJECT, "clothes") == []
        commit(mlflow, PROJECT, ready("clothes", 2, 1))
    else:
        assert [entry.outcome for entry in reconcile(mlflow, PROJECT, "clothes")] == ["promoted"]
    assert client.aliases(mlflow, "clothes") == new
    entries = ledger.entries(mlflow, PROJECT, "clothes")
    assert [(entry.version, entry.outcome) for entry in entries] == [(2, "promoted"), (1, "promoted")]
    assert reconcile(mlflow, PROJECT, "clothes") == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_that_stands_still_for_a_while_is_waited_for_and_nothing_is_done_twice(away, monkeypatch, moment):
    mlflow = MlflowClient()

    def pause() -> None:
        away.running.signal(signal.SIGSTOP)
        threading.Timer(2.5, away.running.signal, [signal.SIGCONT]).start()

    before_write(monkeypatch, *MOMENTS[moment], pause)
    commit(mlflow, PROJECT, ready("clothes", 2, 1))
    reconcile(mlflow, PROJECT, "clothes")  # a request that was sent twice

    aliases = client.aliases(mlflow, "clothes")
    assert aliases == {"champion": 2, "previous": 1}
    entries = ledger.entries(mlflow, PROJECT, "clothes")
    assert [(entry.version, entry.outcome) for entry in entries] == [(2, "promoted"), (1, "promoted")]
    assert by_hand(entries, aliases) == []


@pytest.mark.parametrize("for_good", [False, True])
def test_a_locked_database_is_waited_for_and_then_named(home, original, monkeypatch, for_good):
    """Another program holds the database: MLflow itself waits five seconds for it, and we try again."""
    if not home.database.startswith("sqlite"):
        pytest.skip("Postgres locks rows, not the whole database")
    mlflow, name = MlflowClient(), f"{original.name}-locked-{for_good}"
    copies(original, name, 2)
    commit(mlflow, home.experiment, ready(name, 1, None))
    monkeypatch.setattr(client, "PATIENCE_S", 10 if for_good else 120)
    holder = sqlite3.connect(home.folder / "mlflow.db", check_same_thread=False, isolation_level=None)

    def hold() -> None:
        holder.execute("BEGIN IMMEDIATE")
        if not for_good:
            threading.Timer(7, holder.execute, ["ROLLBACK"]).start()

    with monkeypatch.context() as patch:
        before_write(patch, "set_registered_model_alias", 2, hold)
        if not for_good:
            commit(mlflow, home.experiment, ready(name, 2, 1))
        else:
            with pytest.raises(UserError, match="check that the database is there, writable and not locked"):
                commit(mlflow, home.experiment, ready(name, 2, 1))
            assert client.aliases(mlflow, name)["champion"] == 1
            holder.execute("ROLLBACK")
            assert [entry.outcome for entry in reconcile(mlflow, home.experiment, name)] == ["promoted"]
    holder.close()
    assert client.aliases(mlflow, name) == {"champion": 2, "previous": 1}
