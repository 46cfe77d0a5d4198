"""The deployment as it runs in production: a Prefect server, a process worker, a schedule, a cancellation."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from reflux.components.core.params.file import override_params
from tests.integration.flows.farm import ENDED, Farm, ask_for, at_work, run_and_wait, running_farm
from tests.workspaces import git, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def farm(tmp_path_factory, mlflow_template) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm"), mlflow_template) as built:
        yield built


@pytest.fixture
def with_champion(farm) -> Farm:
    """The farm once its first scheduled run has made a champion."""
    from mlflow import MlflowClient

    name = "name = 'shapes-student'"
    champions = lambda: MlflowClient(farm.tracking_uri).search_registered_models(name)  # noqa: E731
    until(lambda: champions() and champions()[0].aliases.get("champion"), 900)
    return farm


@pytest.fixture
def in_two_pools(with_champion) -> Iterator[Farm]:
    """The farm while it has two pools, and a student with another learning rate."""
    ask_for(with_champion, "run.placement=two-pools", "student.lr=0.011")
    yield with_champion
    ask_for(with_champion, "run.placement=one-worker", "student.lr=0.01")


@pytest.mark.long
def test_a_scheduled_run_ends_in_a_registered_version(farm):
    from mlflow import MlflowClient

    planned = [run for run in farm.flow_runs() if run["auto_scheduled"]]
    first = min(planned, key=lambda run: run["expected_start_time"])["id"]
    ended = until(lambda: (run := farm.flow_run(first))["state_type"] in ENDED and run, 900)
    assert ended["state_type"] == "COMPLETED", farm.logs(first)

    client = MlflowClient(farm.tracking_uri)
    version = client.get_model_version_by_alias("shapes-student", "champion")
    assert version.tags["prefect.flow_run_id"] == first
    assert version.tags["git.sha"] == git(farm.repository, "rev-parse", "HEAD")
    parent = farm.parent(first)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["git.dirty"] == "false"
    branch = parent.data.tags["dvc.lock"]
    assert branch == f"retrain/{parent.info.run_name.removeprefix('retrain-')}"
    assert parent.data.tags["dvc.data_md5"] in git(farm.repository, "show", f"{branch}:dvc.lock")
    later = [run for run in farm.flow_runs() if run["auto_scheduled"] and run["state_type"] == "SCHEDULED"]
    assert later

    tasks = httpx.post(f"{farm.api}/task_runs/filter", json={}, timeout=120).json()
    assert {task["name"] for task in tasks} >= {"ingest", "control", "distill", "evaluate", "register", "promote"}
    artifacts = httpx.post(f"{farm.api}/artifacts/filter", json={}, timeout=120).json()
    result = next(artifact["data"] for artifact in artifacts if artifact["key"] == "retrain-result")
    assert "| student |" in result
    assert "shapes-student version 1 is the new @champion." in result
    assert "VALIDATED" in next(artifact["data"] for artifact in artifacts if artifact["key"] == "promotion")
    page = {artifact["key"]: artifact["data"] for artifact in artifacts if artifact["flow_run_id"] == first}
    assert float(page["retrain-progress"]) == 100
    table = page["retrain-table"] if isinstance(page["retrain-table"], list) else json.loads(page["retrain-table"])
    assert [row["model"] for row in table] == ["teacher", "student", "control", "student, int8"]
    assert re.fullmatch(r"shapes \d{4}-\d\d-\d\d \d\d:\d\d v1 promoted", ended["name"])


@pytest.mark.long
def test_a_run_that_finds_nothing_changed_is_skipped_and_says_why(with_champion):
    from mlflow import MlflowClient

    farm, client = with_champion, MlflowClient(with_champion.tracking_uri)
    before = len(client.search_model_versions("name = 'shapes-student'"))
    ended = run_and_wait(farm, "retrain/retrain")
    run = ended["id"]
    assert (ended["state_type"], ended["state_name"]) == ("COMPLETED", "Skipped"), farm.logs(run)
    assert ended["state"]["message"].startswith("Nothing has changed: data, code and params are those of retrain-")
    assert re.search(r"shapes-student version \d \(promoted\)\.$", ended["state"]["message"])
    assert ended["name"].endswith("skipped")

    experiment = client.get_experiment_by_name("shapes")
    assert not client.search_runs([experiment.experiment_id], f"tags.`prefect.flow_run_id` = '{run}'")
    assert len(client.search_model_versions("name = 'shapes-student'")) == before
    tasks = httpx.post(f"{farm.api}/task_runs/filter", json={}, timeout=120).json()
    assert run not in {task["flow_run_id"] for task in tasks}


@pytest.mark.long
def test_the_monitor_asks_once_for_a_retrain_when_enough_checks_find_new_images_different(with_champion):
    from mlflow import MlflowClient
    from PIL import Image, ImageOps

    farm, client = with_champion, MlflowClient(with_champion.tracking_uri)
    quiet = run_and_wait(farm, "monitor/monitor")
    assert quiet["state_name"] == "Skipped", farm.logs(quiet["id"])
    assert "is that of the champion, shapes-student version 1." in quiet["state"]["message"]

    folder = farm.repository / "data" / "shapes" / "unlabeled"
    for index, image in enumerate(sorted((farm.repository / "data" / "shapes" / "train").rglob("*.png"))):
        ImageOps.invert(Image.open(image)).save(folder / f"new-{index}.png")
    git(farm.repository, "add", "data")
    git(farm.repository, "commit", "-qm", "negatives")

    def retrains() -> list[dict]:
        return [run for run in farm.flow_runs() if "monitor" in run["tags"]]

    first = run_and_wait(farm, "monitor/monitor")
    assert first["state_type"] == "COMPLETED", farm.logs(first["id"])
    assert retrains() == []
    second = run_and_wait(farm, "monitor/monitor")
    assert second["state_type"] == "COMPLETED", farm.logs(second["id"])
    (retrain,) = retrains()
    third = run_and_wait(farm, "monitor/monitor")
    assert third["state_type"] == "COMPLETED", farm.logs(third["id"])
    assert len(retrains()) == 1

    experiment = client.get_experiment_by_name("shapes/monitor")
    checks = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    assert [check.data.tags["differs"] for check in checks] == ["true"] * 3
    assert {file.path for file in client.list_artifacts(checks[0].info.run_id)} == {"drift.md", "drift.png"}
    assert "60 images are new since champion version 1; they differ in " in checks[1].data.tags["mlflow.note.content"]
    assert "A retrain is started: " in checks[1].data.tags["mlflow.note.content"]
    assert "was started before" in checks[2].data.tags["mlflow.note.content"]

    ended = until(lambda: (run := farm.flow_run(retrain["id"]))["state_type"] in ENDED and run, 600)
    assert ended["state_name"] == "Completed", farm.logs(retrain["id"])
    assert client.get_model_version("shapes-student", "2").tags["dvc.data_md5"] == checks[0].data.tags["dvc.data_md5"]


@pytest.mark.long
def test_a_version_is_judged_again_by_the_promote_deployment(with_champion):
    farm = with_champion
    ended = run_and_wait(farm, "promote/promote", "--param", "version=1", "--param", "expected_champion=99")
    assert ended["state_type"] == "FAILED"
    assert "ChampionMoved" in ended["state"]["message"]
    ended = run_and_wait(farm, "promote/promote", "--param", "version=1")
    assert ended["state_type"] == "COMPLETED", farm.logs(ended["id"])
    assert ended["state"]["message"].startswith("shapes-student version 1 is ")


@pytest.mark.long
@pytest.mark.parametrize("given_by", ["the page", "the command"])
def test_a_run_that_needs_approval_is_suspended_and_goes_on_without_training(farm, given_by):
    from mlflow import MlflowClient

    model = f"approved-by-{given_by.replace(' ', '-')}"
    overrides = json.dumps(["registry.approval=human", f"registry.model_name={model}"])
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/retrain", "--param", f"overrides={overrides}")
    run = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]])[0]
    ended = ("PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert until(lambda: (f := farm.flow_run(run)["state_type"]) in ended and f) == "PAUSED", farm.logs(run)
    client = MlflowClient(farm.tracking_uri)
    version = client.get_model_version(model, "1")
    assert (version.tags["approval.state"], version.tags["approval.flow_run_id"]) == ("awaited", run)
    until(lambda: not at_work(farm, "prefect.engine", "prefect.runner"))

    if given_by == "the page":
        word = {"run_input": {"by": "ada@lab", "reason": "seen on the new cameras"}}
        resume = f"{farm.api}/flow_runs/{run}/resume"
        # Prefect answers 503 while its SQLite is busy; a person at the page would press again.
        until(lambda: httpx.post(resume, json=word, timeout=120).is_success)
    else:
        shutil.copy(farm.repository / "params.yaml", farm.repository / "kept.yaml")
        settings = farm.environment | {"MLFLOW_TRACKING_URI": farm.tracking_uri, "USER": "ada"}
        override_params(json.loads(overrides), farm.repository / "params.yaml")
        command = [sys.executable, "-m", "reflux.flows.cli", "approve", "1", "--reason", "seen on the new cameras"]
        done = subprocess.run(
            command, cwd=farm.repository, env=settings, capture_output=True, text=True, check=False, timeout=600
        )
        shutil.move(farm.repository / "kept.yaml", farm.repository / "params.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{model} version 1 is the new @champion." in done.stdout

    assert until(lambda: (f := farm.flow_run(run)["state_type"]) in ended[1:] and f) == "COMPLETED", farm.logs(run)
    version = client.get_model_version_by_alias(model, "champion")
    assert version.tags["approval.by"].startswith("ada@")
    assert version.tags["approval.reason"] == "seen on the new cameras"
    experiment = client.get_experiment_by_name("shapes")
    computed = f"tags.run_kind = 'pipeline' AND tags.`prefect.flow_run_id` = '{run}'"
    assert len(client.search_runs([experiment.experiment_id], computed)) == 1


@pytest.mark.long
def test_a_cancelled_run_leaves_no_process_and_is_killed_in_mlflow(farm):
    overrides = '["student.steps=100000", "seed=1"]'
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/retrain", "--param", f"overrides={overrides}")
    run = until(lambda: [r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["auto_scheduled"]])[0]
    killed = until(lambda: at_work(farm, "reflux.components.stages.distill"), 600)
    for process in killed:
        process.kill()
    # A stage that was killed is tried again; then someone cancels the run.
    until(lambda: (again := at_work(farm, "reflux.components.stages.distill")) and not set(again) & set(killed), 600)
    farm.prefect("flow-run", "cancel", run)
    until(lambda: farm.flow_run(run)["state_type"] == "CANCELLED")
    until(lambda: not at_work(farm, "reflux.components.", "supervise.py"))
    assert farm.parent(run).info.status == "KILLED"


@pytest.mark.long
def test_two_pools_are_refused_to_a_run_that_occupies_the_one_that_trains(farm):
    here = '["run.placement=two-pools"]'
    refused = run_and_wait(farm, "retrain/retrain", "--param", f"overrides={here}")
    assert "itself occupies the worker of" in refused["state"]["message"]


@pytest.mark.long
def test_with_two_pools_the_gpu_trains_and_the_cpu_does_the_rest(in_two_pools):
    """Student and control are changed, so that they are computed and what comes before is restored."""
    from mlflow import MlflowClient

    farm = in_two_pools
    ended = run_and_wait(farm, "retrain/retrain")
    assert ended["state_type"] == "COMPLETED", farm.logs(ended["id"])
    assert ended["work_pool_name"] == "cpu"
    training = next(run for run in farm.flow_runs() if run["parent_task_run_id"])
    assert (training["work_pool_name"], training["state_type"]) == ("gpu", "COMPLETED"), farm.logs(training["id"])

    tasks = httpx.post(f"{farm.api}/task_runs/filter", json={}, timeout=120).json()
    names = {id: {task["name"] for task in tasks if task["flow_run_id"] == id} for id in (ended["id"], training["id"])}
    assert names[training["id"]] >= {"pull", "pretrain", "finetune", "label", "distill", "control", "push control"}
    assert names[ended["id"]] >= {"ingest", "validate", "pull", "compress", "evaluate", "register", "promote"}
    assert not names[training["id"]] & {"ingest", "validate", "compress", "evaluate"}
    assert not names[ended["id"]] & {"pretrain", "finetune", "label", "distill", "control"}

    client, parent = MlflowClient(farm.tracking_uri), farm.parent(ended["id"])
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    computed = {run.info.run_name: run.info.status for run in client.search_runs([parent.info.experiment_id], below)}
    assert computed == dict.fromkeys(("distill", "control", "compress", "evaluate"), "FINISHED")
    assert {key for key in parent.data.tags if key.startswith("restored.")} == {
        f"restored.{name}" for name in ("ingest", "validate", "pretrain", "finetune", "label")
    }
    branch = git(farm.repository, "show", f"{parent.data.tags['dvc.lock']}:dvc.lock")
    assert all(f"  {name}:" in branch for name in ("ingest", "label", "control", "evaluate"))
    (version,) = client.search_model_versions(f"tags.`prefect.flow_run_id` = '{ended['id']}'")
    assert version.tags["git.sha"] == git(farm.repository, "rev-parse", "HEAD")


@pytest.mark.long
def test_with_two_pools_a_cancelled_run_cancels_its_training(in_two_pools):
    farm = in_two_pools
    overrides = '["student.steps=100000", "seed=2"]'
    before = {run["id"] for run in farm.flow_runs()}
    farm.prefect("deployment", "run", "retrain/retrain", "--param", f"overrides={overrides}")
    new = until(lambda: [r for r in farm.flow_runs() if r["id"] not in before and r["parent_task_run_id"]])
    training = new[0]["id"]
    until(lambda: at_work(farm, "reflux.components.stages.finetune"))
    run = next(r["id"] for r in farm.flow_runs() if r["id"] not in before and not r["parent_task_run_id"])
    farm.prefect("flow-run", "cancel", run)
    for each in (run, training):
        until(lambda each=each: farm.flow_run(each)["state_type"] == "CANCELLED")
    until(lambda: not at_work(farm, "reflux.components.", "supervise.py"))
    assert farm.parent(run).info.status == "KILLED"
