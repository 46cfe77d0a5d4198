"""A deployed project with two pipelines: each flow, in a worker's clone, works on its own pipeline alone."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from reflux.components.core.params.file import override_params
from tests.integration.flows.farm import Farm, run_and_wait, running_farm
from tests.workspaces import git

pytestmark = pytest.mark.long

PLACES = {"shapes": ".", "forms": "pipelines/forms"}


def add_forms(repository: Path) -> None:
    """A second pipeline, and no schedule of either, as tests start the runs."""
    forms = repository / PLACES["forms"]
    forms.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(repository / name, forms)
    names = ["project.name=forms", "registry.model_name=forms-student", "ingest.source=../../data/shapes"]
    override_params(names, forms / "params.yaml")
    manifest, yaml = repository / "infra/prefect.yaml", YAML()
    document = yaml.load(manifest.read_text())
    for deployment in document["deployments"]:
        deployment["schedules"] = []
    yaml.dump(document, manifest)


@pytest.fixture(scope="module")
def farm(tmp_path_factory, mlflow_template) -> Iterator[Farm]:
    home = tmp_path_factory.mktemp("farm")
    with running_farm(home, mlflow_template, tuple(PLACES), add_forms, lambda farm: farm.reflux("deploy")) as built:
        yield built


@contextmanager
def refused_params(farm: Farm, pipeline: str) -> Iterator[None]:
    """The repository while Reflux refuses the params of a pipeline; DVC, which reads those of all, takes them."""
    file = farm.repository / PLACES[pipeline] / "params.yaml"
    kept = file.read_bytes()
    file.write_bytes(kept + b"\nunknown: 1\n")
    git(farm.repository, "commit", "-qam", f"{pipeline} is wrong")
    try:
        yield
    finally:
        file.write_bytes(kept)
        git(farm.repository, "commit", "-qam", f"{pipeline} is right")


def test_a_monitor_looks_at_the_model_of_its_own_pipeline(farm):
    with refused_params(farm, "forms"):
        ended = run_and_wait(farm, "monitor/monitor")
    assert ended["state_name"] == "Skipped", farm.logs(ended["id"])
    assert ended["state"]["message"] == "shapes-student has no champion to compare with."


def test_a_retrain_ends_in_the_model_and_the_lock_of_its_own_pipeline(farm):
    with refused_params(farm, "shapes"):
        ended = run_and_wait(farm, "retrain/retrain-forms", seconds=1800)
    assert ended["state_name"] == "Completed", farm.logs(ended["id"])
    client = MlflowClient(farm.tracking_uri)
    assert {version.name for version in client.search_model_versions()} == {"forms-student"}
    champion = client.get_model_version_by_alias("forms-student", "champion")
    assert champion.tags["prefect.flow_run_id"] == ended["id"]
    experiment = client.get_experiment_by_name("forms").experiment_id
    (parent,) = client.search_runs([experiment], "tags.run_kind = 'pipeline'")
    branch = parent.data.tags["dvc.lock"]
    assert git(farm.repository, "diff", "--name-only", f"main...{branch}") == "pipelines/forms/dvc.lock"
    assert champion.tags["dvc.data_md5"] in git(farm.repository, "show", f"{branch}:pipelines/forms/dvc.lock")
