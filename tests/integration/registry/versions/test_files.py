import pytest
from mlflow import MlflowClient

from reflux.components.core.errors import UserError
from tests.integration.registry.faults import flip_byte, registered_file


def test_a_challenger_whose_file_was_changed_is_refused(model_name, registered, judge, aliases):
    version = registered(right=180)
    flip_byte(model_name, version, "model.onnx")
    with pytest.raises(UserError, match="version 1 was changed"):
        judge(version)
    assert aliases() == {"challenger": 1}


def test_a_champion_whose_file_was_changed_blocks_the_comparison(model_name, registered, judge, aliases):
    judge(registered(right=180))
    version = registered(right=190)
    flip_byte(model_name, 1, "model.onnx")
    with pytest.raises(UserError, match=r"version 1 was changed .* `reflux rollback`"):
        judge(version)
    assert aliases()["champion"] == 1


def test_metrics_that_were_edited_are_refused(home, model_name, registered, judge):
    version = registered(right=180)
    path = registered_file(model_name, version, "evaluation/metrics.json")
    path.write_text(path.read_text().replace("0.9", "0.99", 1))
    with pytest.raises(UserError, match="evaluation kept with"):
        judge(version)


def test_a_model_from_elsewhere_is_refused(home, model_name, judge):
    mlflow_client = MlflowClient()
    mlflow_client.create_registered_model(model_name)
    mlflow_client.create_model_version(model_name, f"file://{home.folder}/mlartifacts/clothes/foreign", home.run_id)
    with pytest.raises(UserError, match="not registered by Reflux"):
        judge(1)
