"""What runs the stages elsewhere fits the published schemas, and names stages and params that exist."""

import re
import subprocess
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


def test_the_shared_names_are_plain_and_their_versions_are_the_tested_ones():
    lines = (INFRA / "settings.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert all(re.fullmatch(r"[A-Z0-9_]+", key) and re.fullmatch(r"[\w./:-]+", settings[key]) for key in settings)
    tested = (INFRA.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"mlflow=={settings['REFLUX_MLFLOW_VERSION']}" in tested
    assert f"prefect=={settings['REFLUX_PREFECT_VERSION']}" in tested
