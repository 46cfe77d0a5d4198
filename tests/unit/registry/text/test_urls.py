import pytest

from reflux.components.registry.text import urls


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("https://ada:secret@mlflow.example/", "https://mlflow.example/#/experiments/1/runs/a"),
        ("sqlite:///mlflow.db", None),
    ],
)
def test_only_a_page_of_a_server_has_a_full_address(monkeypatch, uri, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert urls.address(urls.run("1", "a")) == address
    assert urls.address(None) is None


def test_a_card_is_with_its_evaluation_else_with_the_model():
    tags = {"experiment_id": "1", "model_id": "m-1", "evaluate.run_id": "a"}
    assert urls.card(tags) == "#/experiments/1/runs/a/artifacts/model-card.html"
    del tags["evaluate.run_id"]
    assert urls.card(tags) == "#/experiments/1/models/m-1/artifacts"
    assert urls.card({"model_id": "m-1"}) is None


def test_a_flow_run_is_where_the_environment_has_prefect(monkeypatch):
    monkeypatch.delenv("PREFECT_UI_URL", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert urls.flow_run("id") is None
    monkeypatch.setenv("PREFECT_API_URL", "http://ada:secret@prefect:4200/api")
    assert urls.flow_run("id") == "http://prefect:4200/runs/flow-run/id"
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example/")
    assert urls.flow_run("id") == "https://prefect.example/runs/flow-run/id"
