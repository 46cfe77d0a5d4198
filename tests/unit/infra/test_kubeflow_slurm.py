"""What runs the stages elsewhere fits the published schemas, and names stages and params that exist."""

import importlib
import re
import subprocess
from pathlib import Path

from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from ruamel.yaml import YAML

from components.core.contract import STAGES
from components.core.params.sections import Run

INFRA = Path(__file__).parents[3] / "infra"
SBATCH = INFRA / "slurm/retrain.sbatch"
TRAINJOB = INFRA / "kubeflow/trainjob.yaml"


def test_the_trainjob_fits_kubeflows_schema():
    """Parsed by the published models and written again, nothing is lost: there is no key that they don't know."""
    written = YAML(typ="safe").load(TRAINJOB.read_text(encoding="utf-8"))
    assert TrainerV1alpha1TrainJob.from_dict(written).to_dict() == written


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)


def test_both_run_the_stages_that_several_processes_share_and_set_params_that_exist():
    for file in (SBATCH, TRAINJOB):
        stages = re.search(r"for stage in ([a-z ]+);", file.read_text(encoding="utf-8"))
        assert stages is not None
        distributed = [name for name, stage in STAGES.items() if stage.distributed]
        assert stages[1].split() == distributed[:-1]  # evaluate follows on one machine
    set_there = re.findall(r"run\.(\w+)=", SBATCH.read_text(encoding="utf-8"))
    assert set(set_there) <= set(Run.model_fields)


def test_the_slurm_script_calls_what_exists():
    calls = re.findall(r"from (components\S+) import (\w+)", SBATCH.read_text(encoding="utf-8"))
    assert calls
    assert all(callable(getattr(importlib.import_module(module), name)) for module, name in calls)


def test_the_shared_names_are_plain_and_their_versions_are_the_tested_ones():
    lines = (INFRA / "settings.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert all(re.fullmatch(r"[A-Z0-9_]+", key) and re.fullmatch(r"[\w./:-]+", settings[key]) for key in settings)
    tested = (INFRA.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"mlflow=={settings['REFLUX_MLFLOW_VERSION']}" in tested
    assert f"prefect=={settings['REFLUX_PREFECT_VERSION']}" in tested
