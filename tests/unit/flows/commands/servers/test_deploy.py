import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from prefect import Flow
from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.flows.commands.servers import deploy

MANIFEST = Path(__file__).parents[5] / deploy.MANIFEST
ENTRY = "deployments: [{name: a, entrypoint: b, work_pool: {name: cpu}"


@pytest.mark.parametrize(("placement", "pool"), [("one-worker", "gpu"), ("two-pools", "cpu")])
def test_with_two_pools_a_retrain_holds_no_worker_of_the_one_that_trains(placement, pool):
    document = deploy.placed(YAML(typ="safe").load(MANIFEST.read_text()), {"": placement})
    pools = {each["name"]: each["work_pool"]["name"] for each in document["deployments"]}
    assert pools == {"retrain": pool, "train": "gpu", "monitor": "cpu", "promote": "cpu", "tune": "gpu"}


def test_each_pipeline_has_its_deployments_and_what_trains_is_shared():
    written = YAML(typ="safe").load(MANIFEST.read_text())
    document = deploy.placed(written, {"birds": "one-worker", "pets": "two-pools"})
    deployments = {each["name"]: each for each in document["deployments"]}
    flows = ("retrain", "tune", "monitor", "promote")
    assert set(deployments) == {"train", *(f"{flow}-{name}" for flow in flows for name in ("birds", "pets"))}
    assert all(deployments[f"{flow}-pets"]["parameters"] == {"pipeline": "pets"} for flow in flows)
    pools = {name: deployments[f"retrain-{name}"]["work_pool"]["name"] for name in ("birds", "pets")}
    assert pools == {"birds": "gpu", "pets": "cpu"}
    assert deployments["retrain-birds"]["schedules"] == deployments["retrain-pets"]["schedules"]


def test_an_entry_of_its_own_gives_a_pipeline_another_schedule():
    written = YAML(typ="safe").load(MANIFEST.read_text())
    retrain = next(each for each in written["deployments"] if each["name"] == "retrain")
    noon = [{"slug": "noon", "cron": "0 12 * * *", "timezone": "UTC", "active": True}]
    own = {**retrain, "name": "retrain-pets", "parameters": {"pipeline": "pets"}, "schedules": noon}
    written["deployments"].append(own)
    document = deploy.placed(written, dict.fromkeys(["", "birds", "pets"], "one-worker"))
    schedules = {
        each["name"]: each["schedules"] for each in document["deployments"] if each["entrypoint"] == own["entrypoint"]
    }
    assert schedules == {"retrain": retrain["schedules"], "retrain-birds": retrain["schedules"], "retrain-pets": noon}
    with pytest.raises(UserError, match="retrain-pets for the pipeline pets, which is not here"):
        deploy.placed(written, {"": "one-worker"})


def test_a_pool_of_its_own_is_that_of_its_pipeline_alone():
    written = YAML(typ="safe").load(MANIFEST.read_text())
    monitor = next(each for each in written["deployments"] if each["name"] == "monitor")
    small = {"name": "monitor-pets", "parameters": {"pipeline": "pets"}, "work_pool": {"name": "small"}}
    written["deployments"].append({**monitor, **small})
    document = deploy.placed(written, dict.fromkeys(["", "pets"], "two-pools"))
    pools = {each["name"]: each["work_pool"]["name"] for each in document["deployments"]}
    assert {name: pools[name] for name in ("retrain", "monitor", "retrain-pets", "monitor-pets")} == {
        **{"retrain": "cpu", "monitor": "cpu"},
        **{"retrain-pets": "small", "monitor-pets": "small"},
    }


@pytest.mark.parametrize(("name", "pipelines"), [("retrain-pets", ["pets"]), ("retrain-a", ["b", "a-b"])])
def test_two_deployments_of_one_name_are_refused(name, pipelines):
    """One that forgot to name its pipeline would train the root in its place, and Prefect would keep the later."""
    written = YAML(typ="safe").load(MANIFEST.read_text())
    retrain = next(each for each in written["deployments"] if each["name"] == "retrain")
    written["deployments"].append({**retrain, "name": name})
    with pytest.raises(
        UserError, match=r"prefect\.yaml has two deployments retrain/retrain-(pets|a-b): rename one, or "
    ):
        deploy.placed(written, dict.fromkeys(["", *pipelines], "one-worker"))


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
    monkeypatch.setenv(deploy.REPOSITORY, "ssh://git@git.example.org/b.git")
    assert deploy.repository() == "ssh://git@git.example.org/b.git"
    for part in ("https://ada:secret@git.org/b", "https://secret@git.org/b", "https://git.org/b?private_token=secret"):
        monkeypatch.setenv(deploy.REPOSITORY, part)
        with pytest.raises(UserError, match="contains a password or a token") as refused:
            deploy.repository()
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", r"infra/prefect\.yaml is not valid YAML \(.*\): correct it"),
        ("- 1", r"infra/prefect\.yaml has no list of deployments: restore it"),
        ("deployments: []", "has no list of deployments"),
        ("deployments: [1]", "entry 1 of deployments has no name: add it"),
        ("deployments: [{name: a, work_pool: {name: cpu}}]", "entry 1 of deployments has no entrypoint"),
        ("deployments: [{name: a, entrypoint: b}]", r"entry 1 of deployments has no work_pool\.name"),
        (f"{ENTRY}, parameters: [1]}}]", "parameters of entry 1 of deployments must be a mapping"),
        (
            f"{ENTRY}, schedules: {{cron: '* * * * *'}}}}]",
            "schedules of entry 1 of deployments must be a list of mappings",
        ),
        (f"{ENTRY}, schedules: [nightly]}}]", "schedules of entry 1 of deployments must be a list of mappings"),
    ],
)
def test_a_manifest_that_lacks_something_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        deploy.read_manifest(tmp_path / "prefect.yaml")
    assert "\n" not in str(caught.value)
    assert deploy.read_manifest(MANIFEST)["deployments"]


def test_an_entry_may_have_no_schedule_or_one_without_a_slug(tmp_path):
    schedules = {"null": set(), "[]": set(), "[{cron: 0 2 * * *}, {slug: weekly, cron: 0 6 * * 6}]": {"weekly"}}
    for text, slugs in schedules.items():
        (tmp_path / "prefect.yaml").write_text(f"{ENTRY}, schedules: {text}}}]")
        (entry,) = deploy.read_manifest(tmp_path / "prefect.yaml")["deployments"]
        assert deploy.slugs(entry) == slugs
    assert deploy.slugs({}) == set()


def test_a_retrain_of_two_pools_without_a_monitor_is_refused():
    written = YAML(typ="safe").load(MANIFEST.read_text())
    written["deployments"] = [each for each in written["deployments"] if each["name"] != "monitor"]
    with pytest.raises(UserError, match=r"has no deployment of reflux\.flows\.monitor\.monitor, on whose pool"):
        deploy.placed(written, {"": "two-pools"})


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "Deploying retrain\nhttpx.HTTPError: 422 of /filter\nAn exception occurred.\n",
            "httpx.HTTPError: 422 of /filter",
        ),
        ("Error: no such pool\n\n", "Error: no such pool"),
        ("\n", "no reason given"),
    ],
)
def test_what_prefect_refuses_is_told_with_its_reason(printed, reason):
    assert deploy._reason(printed) == reason
