"""A deployed project with two pipelines: in a worker's clone, a flow reads the params of its own pipeline alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
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


@pytest.mark.parametrize(
    ("deployment", "own", "other"),
    [("monitor/monitor-forms", "forms", "shapes"), ("monitor/monitor", "shapes", "forms")],
)
def test_a_flow_looks_at_its_own_model_while_the_params_of_the_other_are_refused(farm, deployment, own, other):
    file = farm.repository / PLACES[other] / "params.yaml"
    kept = file.read_bytes()
    file.write_bytes(kept + b"\nunknown: 1\n")
    git(farm.repository, "commit", "-qam", f"{other} is wrong")
    ended = run_and_wait(farm, deployment)
    file.write_bytes(kept)
    git(farm.repository, "commit", "-qam", f"{other} is right")
    assert ended["state_name"] == "Skipped", farm.logs(ended["id"])
    assert ended["state"]["message"] == f"{own}-student has no champion to compare with."
