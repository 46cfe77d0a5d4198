import multiprocessing
import os
import signal

import pytest

from components.core.errors import UserError
from components.registry import server


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ada:secret@db/mlflow", "postgresql://db/mlflow"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_the_address_hides_the_password(monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert server.address() == shown


def _hold(name, ready):
    with server.lock(name):
        ready.set()
        signal.pause()


def test_a_killed_holder_frees_the_lock_and_a_living_one_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "_LOCK_SECONDS", 0.2)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=("clothes", ready))
    holder.start()
    try:
        assert ready.wait(20)
        with (
            pytest.raises(UserError, match="Another process has been registering or promoting clothes"),
            server.lock("clothes"),
        ):
            pass
        with server.lock("shoes"):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    with server.lock("clothes"):
        pass
