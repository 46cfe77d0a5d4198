import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from PIL import Image

from components.core.tracking import experiment_id
from components.registry.history import history, rollback
from components.registry.predict import predict
from components.registry.promote import challenge
from components.registry.register import register
from components.registry.server import Unreachable

GATES = {"accuracy": {"min": 0.8}}


@pytest.fixture
def mlflow_server(tmp_path, mlflow_template, monkeypatch):
    """A real MLflow server that proxies its artifacts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = tmp_path / "server.db"
    database.write_bytes(mlflow_template.read_bytes())
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", f"{tmp_path}/store"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | quiet | {"PATH": path},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            uri = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 90
            while True:
                try:
                    requests.get(f"{uri}/health", timeout=2).raise_for_status()
                    break
                except requests.RequestException:
                    assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                    time.sleep(0.2)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            yield server
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.slow
def test_register_promote_predict_and_roll_back_over_http(home, model_name, mlflow_server, monkeypatch):
    run = MlflowClient().create_run(experiment_id(MlflowClient(), "clothes"))
    home.run_id, known = run.info.run_id, home.run_id
    try:
        for right in (170, 190):
            artifacts = home.evaluation(right)
            version = register(artifacts, model_name, home.experiment, home.lineage()).version
            outcome = challenge(artifacts, model_name, version, GATES, 0.01, resamples=200, seed=0)
            assert outcome.promoted
        assert challenge(artifacts, model_name, version, GATES, 0.01, resamples=200, seed=0).existing
    finally:
        home.run_id = known
    assert (outcome.champion, outcome.previous) == (2, 1)
    path = home.folder / "dress.png"
    Image.fromarray(np.load(artifacts / "ingest" / "shards" / "test" / "images.npy")[199, ..., 0]).save(path)
    found = predict(path, f"models:/{model_name}@champion")
    assert (found.class_name, found.version) == ("dress", 2)
    assert rollback(model_name) == (1, 2)
    assert [(row.version, row.aliases) for row in history(model_name)] == [
        (2, ("challenger", "previous")),
        (1, ("champion",)),
    ]

    os.killpg(mlflow_server.pid, signal.SIGKILL)
    mlflow_server.wait()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for attempt in (
        lambda: challenge(artifacts, model_name, version, GATES, 0.01, resamples=200, seed=0),
        lambda: register(artifacts, model_name, home.experiment, home.lineage()),
        lambda: history(model_name),
        lambda: predict(path, f"models:/{model_name}@champion"),
    ):
        with pytest.raises(Unreachable, match="does not answer: start it"):
            attempt()
