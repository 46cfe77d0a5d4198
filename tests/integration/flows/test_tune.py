"""The tune flow: the soft labels first, then its part in the study."""

import httpx
import pytest
from mlflow import MlflowClient

from reflux.components.advice.tune.result import read
from reflux.components.core.artifacts import read_json
from reflux.components.core.params.file import override_params
from reflux.flows.tune import tune

pytestmark = pytest.mark.long


def test_a_run_makes_the_soft_labels_and_searches(tmp_path, monkeypatch, tiny_project, prefect_api):
    project = tiny_project(tmp_path / "project")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    space = "{network: resnet8_tiny, width: 1, image_size: 16, steps: [10, 20], ships: onnx}"
    override_params([f"tune.space={space}", "student.model=resnet8_tiny", "student.steps=20", "compress.ships=onnx"])
    state = tune(minutes=1, return_state=True)
    assert state.is_completed(), state
    found = read()
    assert found.counts["trained"] == len(found.rows) >= 2
    assert str(found.counts["trained"]) in state.message
    assert found.store == read_json(project / "artifacts/label/manifest.json")["key"]
    assert not (project / "artifacts/distill").exists(), "the search needs no more than the soft labels"
    page = {each["key"]: each["data"] for each in httpx.post(f"{prefect_api}/artifacts/filter", json={}).json()}
    assert page["tune-front"].startswith("| trial | student |")
    assert float(page["retrain-progress"]) == 100
    runs = MlflowClient().search_runs(["1"], max_results=1000)
    kinds = [run.data.tags["run_kind"] for run in runs]
    assert kinds.count("tune") == 1
    assert kinds.count("tune trial") >= 2
