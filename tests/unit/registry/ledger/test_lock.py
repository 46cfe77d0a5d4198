import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.registry.ledger import lock


@pytest.fixture
def database(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "shared" / "mlflow.db"
    path.parent.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path


def _hold(name, folder, ready):
    os.chdir(folder)
    with lock.held(None, name):
        ready.set()
        signal.pause()


def test_checkouts_on_one_database_share_its_lock_which_a_kill_frees_and_which_names_its_holder(
    tmp_path, database, monkeypatch
):
    monkeypatch.setattr(lock, "WAIT_S", 0.2)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=("clothes", tmp_path / "one", ready))
    holder.start()
    monkeypatch.chdir(tmp_path / "two")
    try:
        assert ready.wait(120)
        with (
            pytest.raises(UserError, match="Another process has been registering or promoting clothes"),
            lock.held(None, "clothes"),
        ):
            pass
        with lock.held(None, "shoes") as check:
            check()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    with lock.held(None, "clothes"):
        pass
    assert (database.parent / lock.LOCKS / "clothes.lock").is_file()
