import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from prefect import Flow
from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.flows.commands.servers import deploy

MANIFEST = Path(__file__).parents[5] / deploy.MANIFEST


@pytest.mark.parametrize(("placement", "pool"), [("one-worker", "gpu"), ("two-pools", "cpu")])
def test_with_two_pools_a_retrain_holds_no_worker_of_the_one_that_trains(placement, pool):
    document = deploy.placed(YAML(typ="safe").load(MANIFEST.read_text()), placement)
    pools = {each["name"]: each["work_pool"]["name"] for each in document["deployments"]}
    assert pools == {"retrain": pool, "train": "gpu", "monitor": "cpu", "promote": "cpu", "tune": "gpu"}


def test_every_deployment_names_a_flow_that_exists():
    document = YAML(typ="safe").load(MANIFEST.read_text())
    for each in document["deployments"]:
        module, _, flow = each["entrypoint"].rpartition(".")
        assert isinstance(getattr(import_module(module), flow), Flow)


def test_workers_clone_what_the_variable_says_or_else_origin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv(deploy.REPOSITORY, raising=False)
    with pytest.raises(UserError, match="has no git remote"):
        deploy.repository()
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "remote", "add", "origin", "https://git.example.org/a.git"], check=True)
    assert deploy.repository() == "https://git.example.org/a.git"
    monkeypatch.setenv(deploy.REPOSITORY, "https://ada:secret@git.example.org/b.git")
    with pytest.raises(UserError, match="contains a password") as refused:
        deploy.repository()
    assert "secret" not in str(refused.value)
