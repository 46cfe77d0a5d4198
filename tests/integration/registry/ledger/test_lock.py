"""The lease that the registry itself holds, between processes that share nothing but a real MLflow server."""

import multiprocessing
import os
import signal
import time
from contextlib import suppress

import pytest
from mlflow import MlflowClient

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.history import history
from reflux.components.registry.ledger import ledger, lock
from reflux.components.registry.ledger.commit import commit, reconcile
from reflux.components.registry.ledger.lock import LockLost
from tests.integration.registry.faults import forked, ready
from tests.servers import mlflow_server

pytestmark = pytest.mark.slow

PROJECT = "clothes"
# A holder may stand still for half of it: on a loaded machine a beat takes a second or two.
SHORT_S = 6.0


@pytest.fixture(scope="module")
def served(tmp_path_factory, home):
    folder = tmp_path_factory.mktemp("lease")
    with mlflow_server(folder, home.database) as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "LEASE_S", SHORT_S)
        yield running


@pytest.fixture
def clothes(served, model_name, tmp_path, monkeypatch) -> str:
    """A model of three versions that an act can move between; nothing reads their files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    mlflow = MlflowClient()
    mlflow.create_registered_model(model_name)
    for _ in range(3):
        mlflow.create_model_version(model_name, "s3://none/none")
    return model_name


def leases(name) -> list[str]:
    return [model.name for model in MlflowClient().search_registered_models() if model.name.startswith(f"{name}.lock-")]


def test_a_held_lease_keeps_others_out_names_its_holder_and_leaves_nothing_behind(clothes, monkeypatch, tmp_path):
    mlflow = MlflowClient()
    with lock.held(mlflow, clothes) as check:
        check()
        assert leases(clothes) == [f"{clothes}.lock-1"]
        monkeypatch.setattr(lock, "WAIT_S", 0.5)
        monkeypatch.setattr(lock, "LOCKS", tmp_path / "another host")
        with (
            pytest.raises(UserError, match=f"{client.whoami()} has been registering or promoting {clothes}"),
            lock.held(mlflow, clothes),
        ):
            pass
        time.sleep(1.2 * SHORT_S)  # its beats keep it alive
        check()
    assert leases(clothes) == []


def test_the_lease_of_a_killed_holder_is_taken_over_and_cleared_away(clothes, tmp_path):
    ready_ = multiprocessing.get_context("fork").Event()

    def hold() -> None:
        os.chdir(tmp_path)
        with lock.held(MlflowClient(), clothes):
            ready_.set()
            signal.pause()

    pid = forked(hold)
    assert ready_.wait(120)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    began = time.monotonic()
    with lock.held(MlflowClient(), clothes):
        assert leases(clothes) == [f"{clothes}.lock-2"]
    assert SHORT_S <= time.monotonic() - began < SHORT_S + 60


@pytest.fixture
def stopped(tmp_path, monkeypatch, request):
    """A host that stops itself in mid-act; returns its pid, and what hears why its act ended."""

    def start(name, version: int, champion: int, at_check: int, checked_first: bool):
        # An act checks its lease before all it does, before each of its two aliases, and before the outcome.
        messages, lost = multiprocessing.get_context("fork").Pipe(duplex=False)

        def first() -> None:
            (tmp_path / "first").mkdir()
            os.chdir(tmp_path / "first")
            real, checks = lock._Lease.check, []

            def check(self):
                checks.append(1)
                if checked_first:
                    real(self)
                if len(checks) == at_check:
                    os.kill(os.getpid(), signal.SIGSTOP)
                if not checked_first:
                    real(self)

            lock._Lease.check = check
            try:
                commit(MlflowClient(), PROJECT, ready(name, version, champion))
            except LockLost as error:
                lost.send(str(error))

        pid = forked(first)
        request.addfinalizer(lambda: end(pid))
        os.waitpid(pid, os.WUNTRACED)
        # The second host does not read the files that it settles on: these versions have none.
        monkeypatch.setattr("reflux.components.registry.ledger.commit._broken", lambda *_: None)
        return pid, messages

    return start


@pytest.mark.parametrize(
    ("at_check", "reached"),
    [pytest.param(3, 1, id="before champion"), pytest.param(4, 2, id="before the outcome", marks=pytest.mark.long)],
)
def test_a_holder_that_stood_still_while_another_promoted_leaves_the_registry_alone(
    clothes, stopped, at_check, reached
):
    """Two hosts: the first is stopped in mid-act beyond its lease; the second finishes that act, and does its own."""
    mlflow = MlflowClient()
    commit(mlflow, PROJECT, ready(clothes, 1, None))
    pid, messages = stopped(clothes, 2, 1, at_check, checked_first=False)
    assert client.aliases(mlflow, clothes)["champion"] == reached

    (settled,) = reconcile(mlflow, PROJECT, clothes)
    assert (settled.version, settled.outcome) == (2, "promoted")
    commit(mlflow, PROJECT, ready(clothes, 3, 2))
    before = client.aliases(mlflow, clothes), ledger.entries(mlflow, PROJECT, clothes)
    assert before[0] == {"champion": 3, "previous": 2}
    os.kill(pid, signal.SIGCONT)

    assert os.waitpid(pid, 0)[1] == 0
    assert messages.poll(5)
    assert "was lost" in messages.recv()
    assert (client.aliases(mlflow, clothes), ledger.entries(mlflow, PROJECT, clothes)) == before
    assert leases(clothes) == []


def test_a_holder_that_stood_still_between_its_check_and_its_write_is_found_out(clothes, stopped):
    """The one case that no lease can prevent without a server that compares and swaps: both sides report it."""
    mlflow = MlflowClient()
    commit(mlflow, PROJECT, ready(clothes, 1, None))
    pid, messages = stopped(clothes, 2, 1, at_check=3, checked_first=True)
    reconcile(mlflow, PROJECT, clothes)
    commit(mlflow, PROJECT, ready(clothes, 3, 2))
    os.kill(pid, signal.SIGCONT)

    assert os.waitpid(pid, 0)[1] == 0
    assert messages.poll(5)
    assert "was lost" in messages.recv()
    (sentence,) = history(PROJECT, clothes).by_hand
    assert sentence.startswith("The alias champion was moved by hand: it is version 2, where the ledger's last move")


def end(pid: int) -> None:
    """Leave no stopped process behind when a test fails."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
