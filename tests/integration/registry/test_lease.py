"""The lease that the registry itself holds, between processes that share nothing but a real MLflow server."""

import multiprocessing
import os
import signal
import time

import pytest
from mlflow import MlflowClient

from components.core.errors import UserError
from components.registry import ledger, lock, server
from components.registry.act import act, reconcile
from components.registry.lock import LockLost
from tests.integration.registry.faults import forked, ready
from tests.integration.registry.servers import mlflow_server

pytestmark = pytest.mark.slow

PROJECT = "clothes"
SHORT_S = 1.5


@pytest.fixture(scope="module")
def served(tmp_path_factory, mlflow_template):
    folder = tmp_path_factory.mktemp("lease")
    database = folder / "server.db"
    database.write_bytes(mlflow_template.read_bytes())
    with mlflow_server(folder, f"sqlite:///{database}") as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", running.uri)
        patch.setattr(lock, "LEASE_S", SHORT_S)
        yield running


@pytest.fixture
def clothes(served, model_name, tmp_path, monkeypatch) -> str:
    """A model of three versions that an act can move between; nothing reads their files."""
    monkeypatch.chdir(tmp_path)
    client = MlflowClient()
    client.create_registered_model(model_name)
    for _ in range(3):
        client.create_model_version(model_name, f"file://{tmp_path}/none")
    return model_name


def leases(name) -> list[str]:
    return [model.name for model in MlflowClient().search_registered_models() if model.name.startswith(f"{name}.lock-")]


def test_a_held_lease_keeps_others_out_names_its_holder_and_leaves_nothing_behind(clothes, monkeypatch, tmp_path):
    client = MlflowClient()
    with lock.held(client, clothes) as check:
        check()
        assert leases(clothes) == [f"{clothes}.lock-1"]
        monkeypatch.setattr(lock, "WAIT_S", 0.5)
        monkeypatch.setattr(lock, "LOCKS", tmp_path / "another host")
        with (
            pytest.raises(UserError, match=f"{server.whoami()} has been registering or promoting {clothes}"),
            lock.held(client, clothes),
        ):
            pass
        time.sleep(2 * SHORT_S)  # its beats keep it alive
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
    assert ready_.wait(30)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    began = time.monotonic()
    with lock.held(MlflowClient(), clothes):
        assert leases(clothes) == [f"{clothes}.lock-2"]
    assert SHORT_S <= time.monotonic() - began < SHORT_S + 5


@pytest.mark.parametrize("stopped_before", ["champion", "the outcome"])
def test_a_holder_that_stood_still_while_another_promoted_leaves_the_registry_alone(
    clothes, tmp_path, monkeypatch, stopped_before
):
    """Two hosts: the first is stopped in mid-act beyond its lease; the second finishes that act, and does its own."""
    client = MlflowClient()
    act(client, PROJECT, ready(clothes, 1, None))
    told, lost = multiprocessing.get_context("fork").Pipe(duplex=False)

    def first() -> None:
        (tmp_path / "first").mkdir()
        os.chdir(tmp_path / "first")
        real = lock._Lease.check
        checks = []

        def check(self):
            checks.append(1)
            if len(checks) == {"champion": 2, "the outcome": 3}[stopped_before]:
                os.kill(os.getpid(), signal.SIGSTOP)
            real(self)

        lock._Lease.check = check
        try:
            act(MlflowClient(), PROJECT, ready(clothes, 2, 1))
        except LockLost as error:
            lost.send(str(error))

    pid = forked(first)
    os.waitpid(pid, os.WUNTRACED)
    expected = {"champion": 1, "the outcome": 2}[stopped_before]
    assert server.aliases(client, clothes)["champion"] == expected
    monkeypatch.chdir(tmp_path)

    (settled,) = settle_like_another_host(client, clothes)
    assert (settled.version, settled.outcome) == (2, "promoted")
    act(client, PROJECT, ready(clothes, 3, 2))
    before = server.aliases(client, clothes), ledger.entries(client, PROJECT, clothes)
    assert before[0] == {"champion": 3, "previous": 2}
    os.kill(pid, signal.SIGCONT)

    assert os.waitpid(pid, 0)[1] == 0
    assert told.poll(5)
    assert "was lost" in told.recv()
    assert (server.aliases(client, clothes), ledger.entries(client, PROJECT, clothes)) == before
    assert leases(clothes) == []


def settle_like_another_host(client, name):
    """Reconcile, once the file of ``_broken`` need not be read: these versions have none."""
    from components.registry import act as acting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acting, "_broken", lambda *_: None)
        return reconcile(client, PROJECT, name)
