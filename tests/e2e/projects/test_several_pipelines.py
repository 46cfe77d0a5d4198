"""A project with two pipelines: each trains and promotes a model of its own, and neither disturbs the other."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import read_json
from reflux.components.core.params.file import override_params
from tests.e2e.command import call, reflux
from tests.workspaces import TINY, picture

pytestmark = pytest.mark.long

NAMES = ("ingest.source", "project.name", "registry.model_name")
METRICS = "artifacts/evaluate/metrics.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_project) -> Path:
    """A project whose root trains on shapes and ``pipelines/forms`` on forms, after a run of each."""
    folder = tiny_project(tmp_path_factory.mktemp("pipelines") / "project")
    rng = np.random.default_rng(1)
    for file in Path(shutil.copytree(folder / "data/shapes", folder / "data/forms")).rglob("*.png"):
        picture(file.stem.partition("-")[0], rng).save(file)
    assert "run --pipeline forms" in printed(folder, "data", "add", "data/forms", "--pipeline", "forms")
    tiny = [assignment for assignment in TINY.split() if not assignment.startswith(NAMES)]
    override_params(tiny, folder / "pipelines/forms/params.yaml")
    assert "shapes-student version 1 is the new @champion" in printed(folder, "run")
    assert "forms-student version 1 is the new @champion" in printed(folder, "run", "--pipeline", "forms")
    return folder


def printed(folder: Path, *arguments: str) -> str:
    done = reflux(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_second_run_of_each_computes_nothing(project):
    before = [read_json(project / place / METRICS) for place in (".", "pipelines/forms")]
    assert before[0]["dataset"] != before[1]["dataset"]
    for arguments, model in (((), "shapes-student"), (("--pipeline", "forms"), "forms-student")):
        again = printed(project, "run", *arguments)
        assert "nothing was trained" in again
        assert f"{model} version 1 is the @champion." in again
    assert [read_json(project / place / METRICS) for place in (".", "pipelines/forms")] == before


def test_runs_and_versions_are_apart_in_one_database(project):
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    assert {model.name for model in client.search_registered_models()} == {"shapes-student", "forms-student"}
    for name in ("shapes", "forms"):
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id], "tags.run_kind = 'pipeline'")
        assert {run.data.params["registry.model_name"] for run in runs} == {f"{name}-student"}
    assert not (project / "pipelines/forms/mlflow.db").exists()
    assert not (project / "pipelines/forms/.dvc").exists()


def test_a_pipelines_champion_classifies_from_the_projects_root(project):
    image = next((project / "data/forms/test/wave").iterdir()).relative_to(project)
    assert str(Path("../..") / image) in printed(project, "predict", str(image), "--csv", "--pipeline", "forms")
    assert "forms-student" in printed(project, "history", "--pipeline", "forms")


def test_what_one_pipeline_changes_is_no_news_to_the_other(project):
    plans = [
        printed(project, "plan", "-S", "student.steps=41", *arguments) for arguments in ((), ("--pipeline", "forms"))
    ]
    assert all("student.steps: 40 → 41" in plan for plan in plans)
    override_params(["student.steps=41"], project / "pipelines/forms/params.yaml")
    assert "Nothing has changed" in printed(project, "plan")
    override_params(["student.steps=40"], project / "pipelines/forms/params.yaml")


def test_dvc_knows_both_pipelines(project):
    done = call(project, "dvc", "status", "dvc.yaml", "pipelines/forms/dvc.yaml")
    assert done.returncode == 0, done.stderr
    changed = [line for line in done.stdout.splitlines() if line.endswith("installed:")]
    assert changed == ["installed:", "pipelines/forms/dvc.yaml:installed:"], "that stage always looks again"
    assert [line for line in done.stdout.splitlines() if not line.startswith("\t")] == changed
    for file, stage in (("dvc.yaml", "distill"), ("pipelines/forms/dvc.yaml", "pipelines/forms/dvc.yaml:distill")):
        assert f'["{stage}"]' in call(project, "dvc", "dag", "--mermaid", file).stdout
