"""What runs the stages elsewhere fits the published schemas, and names stages and params that exist."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from ruamel.yaml import YAML

from reflux.components.core.contract import STAGES

INFRA = Path(__file__).parents[3] / "infra"
SBATCH = INFRA / "slurm/retrain.sbatch"
RETRAIN = INFRA / "kubeflow/retrain"
TRAINJOB = INFRA / "kubeflow/trainjob.yaml"


def test_the_trainjob_fits_kubeflows_schema():
    """Parsed by the published models and written again, nothing is lost: there is no key that they don't know."""
    written = YAML(typ="safe").load(TRAINJOB.read_text(encoding="utf-8"))
    assert TrainerV1alpha1TrainJob.from_dict(written).to_dict() == written


@pytest.mark.parametrize("script", [SBATCH, RETRAIN])
def test_the_scripts_are_bash(script: Path):
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("file", "names"),
    [(SBATCH, r"for stage in ([a-z ]+);"), (TRAINJOB, r"for stage in ([a-z ]+);"), (RETRAIN, r"--force ([a-z ]+)")],
)
def test_the_stages_that_several_processes_share_run_on_all_machines(file: Path, names: str):
    stages = re.search(names, file.read_text(encoding="utf-8"))
    assert stages is not None
    distributed = [name for name, stage in STAGES.items() if stage.distributed]
    assert stages[1].split() == distributed[:-1]  # evaluate follows on one machine


COMMANDS = ("dvc", "kubectl", "python", "reflux", "scontrol", "srun", "torchrun")
COMMAND = """#!/bin/bash
printf '%s\\n' "$PWD" >> "$NOTED"
case "$(basename "$0") $*" in
    "dvc --wait-for-lock status "*) exit 1 ;;
    "kubectl create -f - -o name") cat > "$NOTED.job"; echo trainjob/one ;;
    "scontrol show "*) echo node1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with the pipeline birds, and commands that only note in which folder they were called."""
    for folder in ("bin", "project/pipelines/birds", "project/infra"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "project/infra/kubeflow").symlink_to(TRAINJOB.parent)
    for name in COMMANDS:
        (tmp_path / "bin" / name).write_text(COMMAND)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin/activate").touch()
    return tmp_path / "project"


def called(checkout: Path, *command: str, **variables: str) -> "tuple[subprocess.CompletedProcess[str], set[str]]":
    """Run a recipe in a checkout, and return the folders in which it has called a command."""
    above = checkout.parent
    variables |= {"PATH": f"{above / 'bin'}:{os.environ['PATH']}", "NOTED": str(above / "noted")}
    variables |= {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_NODELIST": "node1", "SLURM_JOB_ID": "1"}
    variables |= {"SLURM_JOB_NUM_NODES": "1", "REFLUX_VENV": "..", "PET_MASTER_PORT": "1", "PET_NODE_RANK": "0"}
    variables["PET_MASTER_ADDR"] = "node1"
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
    noted = above / "noted"
    return done, set(noted.read_text().splitlines()) if noted.exists() else set()


@pytest.mark.parametrize("script", [SBATCH, RETRAIN])
@pytest.mark.parametrize(("variables", "place"), [({}, ""), ({"REFLUX_PIPELINE": "birds"}, "pipelines/birds")])
def test_all_that_a_recipe_calls_works_in_its_pipelines_folder(
    checkout: Path, script: Path, variables: Mapping[str, str], place: str
):
    done, folders = called(checkout, "bash", str(script), **variables)
    assert (done.returncode, folders) == (0, {str(checkout / place)}), done.stderr
    if script == RETRAIN:
        trainer = YAML(typ="safe").load((checkout.parent / "noted.job").read_text())["spec"]["trainer"]
        own = {each["name"]: each["value"] for each in trainer["env"]}
        (checkout.parent / "noted").unlink()
        command = [part.replace("/workspace", str(checkout)) for part in trainer["command"]]
        done, folders = called(checkout, *command, **own)
        assert (done.returncode, folders) == (0, {str(checkout / place)}), done.stderr


@pytest.mark.parametrize("script", [SBATCH, RETRAIN])
def test_a_recipe_for_a_pipeline_that_is_not_there_ends_in_one_line(checkout: Path, script: Path):
    done, folders = called(checkout, "bash", str(script), REFLUX_PIPELINE="bird")
    assert (done.returncode, folders, done.stderr.count("\n")) == (1, set(), 1)
    assert "pipelines/bird: No such file or directory" in done.stderr


def test_the_shared_names_are_plain_and_their_versions_are_the_tested_ones():
    lines = (INFRA / "settings.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert all(re.fullmatch(r"[A-Z0-9_]+", key) and re.fullmatch(r"[\w./:@-]+", settings[key]) for key in settings)
    tested = (INFRA.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"mlflow=={settings['REFLUX_MLFLOW_VERSION']}" in tested
    assert f"prefect=={settings['REFLUX_PREFECT_VERSION']}" in tested
