import shutil

import mlflow
import pytest

from reflux.components.core.runtime import tracking
from reflux.components.observe.boards import declared
from reflux.flows.report import flow_page
from tests.integration.observe.boards.runs import retrain
from tests.servers import mlflow_server


@pytest.mark.slow
def test_the_flow_runs_page_links_the_board_the_version_and_its_card(tmp_path, monkeypatch, mlflow_template):
    shutil.copy(mlflow_template, tmp_path / "server.db")
    monkeypatch.chdir(tmp_path)
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        retrain()
        client = mlflow.MlflowClient()
        client.create_registered_model("clothes")
        client.create_model_version("clothes", "s3://none/none", tags={"experiment_id": "1", "evaluate.run_id": "e1"})
        address = tracking.uri()
        assert flow_page._links("demo", "clothes", 1) == {
            "board": (f"{address}/{declared.HEALTH.link('1')}", "Retraining health in MLflow"),
            "version": (f"{address}/#/models/clothes/versions/1", "clothes version 1 in MLflow"),
            "card": (f"{address}/#/experiments/1/runs/e1/artifacts/model-card.html", "Model card of version 1"),
        }
