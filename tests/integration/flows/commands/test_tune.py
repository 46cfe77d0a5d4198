"""``reflux tune`` on a tiny dataset, with real training, Optuna and MLflow."""

import importlib
import shutil
from pathlib import Path

import pytest

from reflux.components.advice.tune.result import read
from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.stage import Stage
from tests.workspaces import training_workspace

pytestmark = pytest.mark.slow

# The present student learns next to nothing, so that the search finds a better one.
SPACE = """
    project.name=shapes student.model=resnet8_tiny tune.space.network=resnet8_tiny tune.space.width=1
    tune.space.image_size=12 tune.space.steps=[10,20] evaluate.latency_runs=20 student.eval_every=5 student.lr=0.00001
    registry.gates.latency_ms_p95.max=1000
"""


@pytest.fixture(scope="module")
def labeled(tmp_path_factory) -> Path:
    """A workspace up to the soft labels."""
    folder = training_workspace(tmp_path_factory.mktemp("tune") / "project")
    params = override_params(SPACE.split(), folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("pretrain", "finetune", "label"):
            Path("artifacts", name).mkdir()
            importlib.import_module(f"reflux.components.stages.{name}.__main__").main(Stage(name, params))
    return folder


@pytest.fixture
def project(labeled, monkeypatch, call_reflux, mlflow_template):
    monkeypatch.chdir(labeled)
    if not Path("mlflow.db").is_file():
        shutil.copy(mlflow_template, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{labeled}/mlflow.db")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return call_reflux


@pytest.mark.long
def test_a_study_is_searched_logged_and_the_smallest_is_taken(project):
    code, out, err = project("tune", "--minutes", "3", "--objective", "accuracy,size_kb")
    assert code == 0, err
    result = read()
    assert "the test split was not opened" in out
    assert "reflux tune --take smallest" in out or "tune --take smallest" in out
    client = tracking.client()
    runs = client.search_runs([tracking.experiment_id(client, "shapes")], max_results=1000)
    (study,) = (run for run in runs if run.data.tags.get("run_kind") == "tune")
    trials = [run for run in runs if run.data.tags.get("run_kind") == "tune trial"]
    assert len(trials) >= len(result.rows)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {study.info.run_id}
    assert any("val/accuracy" in run.data.metrics and "tune/size_kb" in run.data.metrics for run in trials)
    files = {file.path for file in client.list_artifacts(study.info.run_id)}
    assert {"result.json", "front.png", "trials.csv"} <= files
    code, out, err = project("tune", "--take", "smallest")
    assert code == 0, err
    smallest = result.chosen("smallest")
    params = load_params()
    assert params.student.model == smallest.params["student.model"]
    assert params.compress.ships == smallest.params["compress.ships"]
    assert params.student.lr == smallest.params["student.lr"]
    assert "# reflux tune, trial " in Path("params.yaml").read_text()
    assert out.strip().endswith("run")
    code, _, err = project("tune", "--take", "100000")
    assert (code, err.count("\n")) == (2, 1)
    assert "--take 100000: no such trial was trained to its end; the front has" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--take", "tiniest"], "--take tiniest is none of smallest, best, knee and no number of a trial."),
        (["--objective", "speed"], "--objective speed is unknown: name some of accuracy, macro_f1"),
        (["--objective", "size_kb,accuracy"], "must begin with what is to be good: accuracy, macro_f1"),
        (["--objective", "accuracy,accuracy"], "names a figure twice"),
        (["--take", "best"], "There is no study yet: run `reflux tune --minutes 20`."),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_starts(project, tmp_path, monkeypatch, arguments, sentence):
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = project("tune", *arguments)
    assert code == 2
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert Path("params.yaml").read_bytes() == (tmp_path / "params.yaml").read_bytes()


def test_without_optuna_it_says_what_to_install(project, tmp_path, monkeypatch):
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reflux.flows.pipeline.search.find_spec", lambda name: None)
    code, _, err = project("tune")
    assert (code, err) == (2, "Error: reflux tune needs the package optuna: `pip install optuna`.\n")
