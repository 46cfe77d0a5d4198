"""What breaks in production, on the local stack, and what must be true afterwards."""

import os
import signal
import time
from typing import Any

import psutil
import pytest
import yaml

from tests.e2e.stack import (
    ENDED,
    LocalStack,
    deploy_to,
    held_down,
    logs_of,
)
from tests.servers import has_postgres
from tests.trees import command_line, is_alive
from tests.workspaces import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not has_postgres(), reason="NO POSTGRES: install Debian's postgresql"),
]

TRAINING = "reflux.components.stages.distill"
RUNS_IN_A_ROW = 100


def recipe(number: int, steps: int = 1500) -> tuple[str, ...]:
    """A student of its own, in training for long enough to be hit; its teacher is that of all others."""
    return (f"student.steps={steps + number}", "student.eval_every=100", "run.checkpoint_every_s=1")


def in_training(stack: LocalStack, run: str) -> psutil.Process:
    """The training process, once it has trained for a while and left a checkpoint."""
    began = time.time()
    checkpoints = stack.state / "worker" / "gpu" / "kept" / "shapes" / "checkpoints" / "distill"

    def training() -> psutil.Process | None:
        state = stack.flow_run(run)["state_type"]
        assert state not in ENDED, stack.logs(run)
        if state != "RUNNING" or not any(file.stat().st_mtime > began for file in checkpoints.glob("*.pt")):
            return None
        # The deepest: DVC and the shell that it starts have the stage in their command lines as well.
        return next((p for p in stack.at_work(TRAINING) if not p.children() and "python" in p.name()), None)

    return until(training, 600)


def completed(stack: LocalStack, run: str) -> dict[str, Any]:
    ended = stack.ended(run)
    assert ended["state_type"] == "COMPLETED", stack.logs(run) + logs_of(stack.state)
    return ended


def tasks(stack: LocalStack, run: str) -> dict[str, dict[str, Any]]:
    tasks = stack.prefect("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return {task["name"]: task for task in tasks}


def assert_clean(stack: LocalStack) -> None:
    """Nothing of a run is left: no process, no clone, no run in MLflow that seems to go on."""
    until(lambda: not stack.at_work("reflux.components.", "prefect.engine"), 60)
    clones = stack.state / "worker" / "gpu" / "clones"
    until(lambda: not any((path / "dvc.yaml").exists() for path in clones.iterdir()), 60)


def test_kill_9_of_the_training_is_retried_once_and_goes_on_from_its_checkpoint(stack, deployment):
    run = stack.start(deployment, recipe(1))
    in_training(stack, run).kill()
    completed(stack, run)
    assert tasks(stack, run)["distill"]["run_count"] == 2
    assert tasks(stack, run)["finetune"]["run_count"] == 1
    logs = stack.logs(run)
    assert "it was killed by SIGKILL" in logs
    assert "Note: goes on after" in logs
    (student,) = runs(stack, run, "distill")
    steps = [metric.step for metric in stack.mlflow().get_metric_history(student.info.run_id, "train/loss")]
    assert student.info.status == "FINISHED"
    assert len(steps) == len(set(steps)), "one curve, no step twice"
    assert_clean(stack)


def test_kill_9_of_the_flow_run_ends_its_children_and_the_next_run_goes_on(stack, deployment):
    run = stack.start(deployment, recipe(2))
    training = in_training(stack, run)
    worker = stack.part("worker-gpu")
    flow = next(process for process in training.parents() if process.ppid() == worker.pid)
    below = flow.children(recursive=True)
    flow.kill()
    assert until(lambda: (s := stack.flow_run(run)["state_type"]) != "RUNNING" and s, 600) == "CRASHED"
    assert not left(below)
    assert_clean(stack)
    again = stack.start(deployment, recipe(2))
    completed(stack, again)
    logs = stack.logs(again)
    assert "Note: goes on after" in logs
    for finished in ("ingest", "validate", "pretrain", "finetune", "label"):
        assert not runs(stack, again, finished), f"{finished} was computed again"
    assert stack.parent(run).info.status == "KILLED"


@pytest.mark.parametrize(("number", "seed"), [(signal.SIGKILL, 3), (signal.SIGTERM, 4)])
def test_a_worker_that_dies_leaves_nothing_behind_and_takes_new_runs(stack, deployment, number, seed):
    run = stack.start(deployment, recipe(seed))
    in_training(stack, run)
    worker = stack.part("worker-gpu")
    below = worker.children(recursive=True)
    worker.send_signal(number)
    assert not left(below)
    ended = stack.ended(run, 700)
    assert ended["state_type"] == "CRASHED"
    again = stack.start(deployment, recipe(seed))
    completed(stack, again)
    assert "Note: goes on after" in stack.logs(again)
    assert stack.parent(run).info.status == "KILLED"
    assert_clean(stack)


@pytest.mark.parametrize(("part", "seconds", "seed"), [("mlflow", 60, 5), ("prefect", 60, 6), ("postgres", 10, 7)])
def test_a_server_away_in_mid_run_loses_no_state_no_metric_and_no_registration(stack, deployment, part, seconds, seed):
    run = stack.start(deployment, recipe(seed))
    in_training(stack, run)
    with held_down(stack, part):
        time.sleep(seconds)
    completed(stack, run)
    # What Prefect could not write to Postgres it writes later, one state in five seconds.
    until(lambda: {task["state_type"] for task in tasks(stack, run).values()} == {"COMPLETED"}, 60)
    assert stack.parent(run).info.status == "FINISHED"
    assert whole(stack, run)
    assert_clean(stack)


def test_s3_away_when_results_are_stored_fails_the_run_and_the_next_computes_nothing_again(stack, deployment):
    run = stack.start(deployment, recipe(9))
    in_training(stack, run)
    with held_down(stack, "s3"):
        assert stack.ended(run)["state_type"] == "FAILED"
    assert "can't be stored on DVC's remote shared" in stack.logs(run)
    assert tasks(stack, run)["push distill"]["run_count"] == 5
    assert_clean(stack)
    again = stack.start(deployment, recipe(9))
    completed(stack, again)
    for finished in ("ingest", "validate", "pretrain", "finetune", "label", "distill", "control"):
        assert not runs(stack, again, finished), f"{finished} was computed again"
    assert stack.parent(run).info.status == "FAILED"
    assert registered(stack, again, "shapes")
    until(lambda: whole_curve(stack, run, "distill", "shapes"), 60)


def test_two_datasets_at_once_share_a_cache_and_are_both_right(stack, deployment):
    second = deploy_to(stack, deployment, "cpu")
    names = ("ingest.source=data/fewer", "project.name=fewer", "registry.model_name=fewer-student")
    started = {"shapes": stack.start(deployment, recipe(10)), "fewer": stack.start(second, (*recipe(11), *names))}
    until(lambda: {stack.flow_run(run)["state_type"] for run in started.values()} == {"RUNNING"}, 300)
    for name, run in started.items():
        completed(stack, run)
        added = (stack.home / "repository" / "data" / f"{name}.dvc").read_text()
        assert stack.parent(run, name).data.tags["dvc.data_md5"] == yaml.safe_load(added)["outs"][0]["md5"]
        assert whole(stack, run, name)
    assert_clean(stack)


def test_with_two_pools_a_training_whose_worker_dies_goes_on_and_its_retrain_waits_for_it(stack, deployment):
    waiting = deploy_to(stack, deployment, "cpu")
    run = stack.start(waiting, (*recipe(12), "run.placement=two-pools"))
    in_training(stack, run)
    stack.part("worker-gpu").kill()
    completed(stack, run)
    training_runs = stack.prefect("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
    assert sorted(training["state_type"] for training in training_runs) == ["COMPLETED", "CRASHED"]
    (again,) = (training["id"] for training in training_runs if training["state_type"] == "COMPLETED")
    assert "Note: goes on after" in stack.logs(again)
    assert tasks(stack, again)["distill"]["run_count"] == 1
    assert whole(stack, run)
    assert_clean(stack)


def test_a_cancelled_run_is_gone_in_15_seconds_and_killed_in_mlflow(stack, deployment):
    run = stack.start(deployment, recipe(8, steps=100_000))
    in_training(stack, run)
    below = stack.part("worker-gpu").children(recursive=True)
    stack.prefect("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    noticed = until(lambda: "Stopping" in stack.logs(run) or stack.flow_run(run)["state_type"] == "CANCELLED", 60)
    assert noticed
    _, alive = psutil.wait_procs(below, timeout=120)
    assert not alive
    assert stack.ended(run)["state_type"] == "CANCELLED"
    until(lambda: stack.parent(run).info.status == "KILLED", 30)
    assert_clean(stack)


def test_a_hundred_runs_in_a_row_leave_nothing_behind(stack, deployment):
    """Nothing has changed for any but the first: each says so, and the machine is as it was."""
    completed(stack, stack.start(deployment))

    def skip(times: int) -> None:
        for _ in range(times):
            assert completed(stack, stack.start(deployment))["state_name"] == "Skipped"

    skip(RUNS_IN_A_ROW // 5)  # servers and the worker have filled their caches by then
    assert_clean(stack)
    before = footprint(stack)
    skip(RUNS_IN_A_ROW - RUNS_IN_A_ROW // 5)
    assert_clean(stack)
    after = footprint(stack)
    print(f"{before}\n{after}")
    assert after["processes"] <= before["processes"]
    assert after["open files"] < 1.05 * before["open files"]
    assert after["files"] <= before["files"]
    assert after["runs"] == before["runs"]
    assert after["MiB"] < 1.1 * before["MiB"]


def footprint(stack: LocalStack) -> dict[str, int]:
    """What the stack's long-living processes hold, and what its runs have left on the disk and in MLflow."""
    client = stack.mlflow()
    # MLflow's and Prefect's pools open connections up to a bound, and Postgres has a process for each.
    processes = [process for process in stack.processes() if not command_line(process).startswith("postgres: ")]
    return {
        "processes": len(processes),
        "open files": sum(process.num_fds() for process in processes),
        "MiB": sum(process.memory_info().rss for process in processes) >> 20,
        # Its clones, and what it takes for the machine's temporary folder, are here.
        "files": sum(len(files) for _, _, files in os.walk(stack.state / "worker" / "gpu")),
        "runs": len(client.search_runs([client.get_experiment_by_name("shapes").experiment_id])),
    }


def left(processes: list[psutil.Process], seconds: float = 120) -> list[str]:
    """What still runs after a while: they are asked, and killed after 20 s of a machine that is not busy."""
    _, there = psutil.wait_procs(processes, timeout=seconds)
    return [command_line(process) for process in there if is_alive(process)]


def runs(stack: LocalStack, run: str, stage: str, project: str = "shapes") -> list[Any]:
    """The MLflow runs that a flow run made of a stage."""
    client, parent = stack.mlflow(), stack.parent(run, project)
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = client.search_runs([parent.info.experiment_id], below)
    return [child for child in children if child.info.run_name.startswith(stage)]


def whole_curve(stack: LocalStack, run: str, stage: str, project: str) -> bool:
    """Whether a training run has its whole curve, each step once, and its end in MLflow.

    One that was killed before its first checkpoint has begun anew, as another run.
    """
    child, *killed = runs(stack, run, stage, project)
    assert all(each.info.status == "KILLED" and "val/accuracy" not in each.data.metrics for each in killed), killed
    steps = [metric.step for metric in stack.mlflow().get_metric_history(child.info.run_id, "val/accuracy")]
    return child.info.status == "FINISHED" and len(steps) == len(set(steps)) == 16


def registered(stack: LocalStack, run: str, project: str) -> bool:
    """Whether a flow run has made a version."""
    versions = stack.mlflow().search_model_versions(f"name = '{project}-student'")
    return any(version.tags.get("prefect.flow_run_id") == run for version in versions)


def whole(stack: LocalStack, run: str, project: str = "shapes") -> bool:
    """Whether nothing of a flow run is missing in MLflow: its training runs, and its version."""
    curves = all(whole_curve(stack, run, stage, project) for stage in ("distill", "control"))
    return curves and registered(stack, run, project)
