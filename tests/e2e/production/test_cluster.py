"""The recipes for Slurm and Kubeflow, from a fresh checkout and from new data, with real processes on stand-ins."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageChops
from ruamel.yaml import YAML

from reflux.components.core.params.file import override_params
from tests.e2e.command import environment
from tests.e2e.production import cluster
from tests.workspaces import git, make_tiny_project, until

pytestmark = pytest.mark.long

MARK = "REFLUX_TEST_CLUSTER"
SHARED = ["finetune", "label", "distill", "control"]


@pytest.fixture
def checkout(tmp_path: Path, mlflow_template: Path, prefect_home: Callable[[Path], Path]) -> Path:
    """A fresh clone of a team's repository."""
    project = make_tiny_project(tmp_path / "team")
    overrides = ["run.threads=1", "run.checkpoint_every_s=0.05", "finetune.epochs=4", "student.steps=200"]
    override_params(overrides, project / "params.yaml")
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=A tiny project")
    git(tmp_path, "clone", "--quiet", str(project), "checkout")
    shutil.copy(mlflow_template, tmp_path / "checkout/mlflow.db")
    prefect_home(tmp_path / "checkout/.reflux/prefect")
    return tmp_path / "checkout"


class Recipe:
    """Runs a recipe in a checkout, with a cluster of two machines that stands in."""

    def __init__(self, checkout: Path, *command: str) -> None:
        self.checkout, self._command = checkout, command
        commands = cluster.install(checkout.parent / "venv")
        port = _free_port()
        self._environment = environment(checkout) | {
            "PATH": f"{commands / 'bin'}:{os.environ['PATH']}",
            "REFLUX_VENV": str(commands),
            "SLURM_SUBMIT_DIR": str(checkout),
            "SLURM_JOB_ID": str(port - 29400),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "CLUSTER_PORT": str(port),
            MARK: str(checkout),
        }

    def start(self) -> "subprocess.Popen[str]":
        """Start the recipe; its output goes to a file."""
        with (self.checkout.parent / "output.txt").open("w") as output:
            return subprocess.Popen(
                self._command, cwd=self.checkout, env=self._environment, stdout=output, stderr=output, text=True
            )

    def output(self) -> str:
        return (self.checkout.parent / "output.txt").read_text()

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.checkout):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def rank(self, stage: str, rank: int) -> psutil.Process | None:
        """The process of a stage that has this rank, once it is in the training's world."""
        module = f"reflux.components.stages.{stage}"
        for process in self.processes():
            try:
                if process.environ().get("RANK") == str(rank) and module in process.cmdline():
                    return process
            except psutil.Error:
                continue
        return None


def _free_port() -> int:
    """A free port among those that Slurm's script takes; each process that tests begins at another one."""
    for place in range(99):
        port = 29400 + 10 * ((os.getpid() + place) % 99)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


@pytest.fixture
def slurm(checkout: Path) -> Iterator[Recipe]:
    recipe = Recipe(checkout, "bash", "infra/slurm/retrain.sbatch")
    yield recipe
    _end(recipe)


@pytest.fixture
def kubeflow(checkout: Path) -> Iterator[Recipe]:
    """With the TrainJob as a team adapts it: its own server, and pods without a GPU."""
    yaml, file = YAML(), checkout / "infra/kubeflow/trainjob.yaml"
    job = yaml.load(file)
    job["spec"]["trainer"]["numProcPerNode"] = 1
    tracking, _pipeline = job["spec"]["trainer"]["env"]
    tracking["value"] = f"sqlite:///{checkout}/mlflow.db"
    yaml.dump(job, file)
    recipe = Recipe(checkout, "infra/kubeflow/retrain")
    yield recipe
    _end(recipe)


def _end(recipe: Recipe) -> None:
    for process in recipe.processes():
        process.kill()


def changed(checkout: Path) -> set[str]:
    """The stages that DVC would run again; ``installed`` it always would."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout)) - {"installed"}


def add_pictures(checkout: Path) -> None:
    """Thirty more labeled pictures: those of the test split, moved a little."""
    for source in sorted((checkout / "data/shapes/test").glob("*/*-[0-9].png")):
        target = checkout / "data/shapes/train" / source.parent.name / f"new-{source.name}"
        ImageChops.offset(Image.open(source), 3, 0).save(target)


def images(checkout: Path) -> int:
    return pq.read_metadata(checkout / "artifacts/ingest/manifest.parquet").num_rows


def lose_a_process(recipe: Recipe, running: "subprocess.Popen[str]", stage: str) -> None:
    """Kill -9 of one of the two processes of a stage that trains, once there is a checkpoint."""
    checkpoints = recipe.checkout / ".reflux/checkpoints" / stage
    until(lambda: list(checkpoints.glob("*.pt")) or running.poll() is not None, 1800)
    assert running.poll() is None, recipe.output()
    lost = recipe.rank(stage, 1)
    assert lost is not None
    lost.kill()


@pytest.mark.parametrize("name", ["slurm", "kubeflow"])
def test_a_fresh_checkout_and_then_new_data_become_results_that_dvc_accepts(name: str, request):
    recipe: Recipe = request.getfixturevalue(name)
    checkout, params = recipe.checkout, (recipe.checkout / "params.yaml").read_bytes()
    running = recipe.start()
    lose_a_process(recipe, running, "distill")
    assert running.wait(1800) == 0, recipe.output()
    assert "where it was interrupted" in recipe.output()
    assert "shapes-student version 1 is the new @champion" in recipe.output()
    assert not changed(checkout)
    first = images(checkout)

    add_pictures(checkout)
    assert recipe.start().wait(1800) == 0, recipe.output()
    assert "shapes-student version 2" in recipe.output()
    assert not changed(checkout)
    assert images(checkout) == first + 30
    assert (checkout / "params.yaml").read_bytes() == params
    assert not git(checkout, "status", "--porcelain", "params.yaml")
