import signal

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from reflux.components.core.runtime.tracking import experiment_id
from reflux.components.registry.client import Unreachable
from reflux.components.registry.history import history
from reflux.components.registry.predict import predict
from reflux.components.registry.promote import challenge
from reflux.components.registry.register import register
from reflux.components.registry.rollback import rollback
from tests.servers import mlflow_server


@pytest.fixture
def served(tmp_path, home, monkeypatch):
    with mlflow_server(tmp_path, home.database) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


@pytest.mark.long
def test_register_promote_predict_and_roll_back_over_http(home, model_name, served, monkeypatch, make_grounds):
    grounds = make_grounds({"accuracy": {"min": 0.8}})
    run = MlflowClient().create_run(experiment_id(MlflowClient(), "clothes"))
    home.run_id, known = run.info.run_id, home.run_id
    try:
        for right in (170, 190):
            artifacts = home.evaluation(right)
            version = register(artifacts, model_name, home.experiment, home.lineage()).version
            outcome = challenge(artifacts, home.experiment, model_name, version, grounds)
            assert outcome.promoted
        assert challenge(artifacts, home.experiment, model_name, version, grounds).existing
    finally:
        home.run_id = known
    assert (outcome.champion, outcome.previous) == (2, 1)
    path = home.folder / "dress.png"
    Image.fromarray(np.load(artifacts / "ingest" / "shards" / "test" / "images.npy")[199, ..., 0]).save(path)
    (prediction,) = predict([path], f"models:/{model_name}@champion")
    assert (prediction.class_name, prediction.version) == ("dress", 2)
    assert rollback(home.experiment, model_name, "worse") == (1, 2)
    past = history(home.experiment, model_name)
    assert (past.champion, past.previous, past.by_hand) == (1, 2, [])
    assert [(entry.version, entry.outcome) for entry in past.entries] == [
        (1, "rolled back"),
        (2, "promoted"),
        (1, "promoted"),
    ]

    served.signal(signal.SIGKILL)
    served.process.wait()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for attempt in (
        lambda: challenge(artifacts, home.experiment, model_name, version, grounds),
        lambda: register(artifacts, model_name, home.experiment, home.lineage()),
        lambda: history(home.experiment, model_name),
        lambda: list(predict([path], f"models:/{model_name}@champion")),
    ):
        with pytest.raises(Unreachable, match="does not answer: start it"):
            attempt()
