"""Where an evaluation was made: the runs and the releases."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from reflux.components.core.artifacts import ARTIFACTS, read_json

_SOFTWARE = ("torch", "timm", "onnx", "onnxruntime")


def runs(stages: Sequence[str], artifacts: Path = ARTIFACTS) -> dict[str, str]:
    """The MLflow run that made each stage's artifacts, for those that were tracked."""
    files = {stage: artifacts / stage / "run.json" for stage in stages}
    runs_of = {stage: read_json(file).get("mlflow_run_id") for stage, file in files.items() if file.is_file()}
    return {stage: run for stage, run in runs_of.items() if run}


def environments(stages: Sequence[str], artifacts: Path = ARTIFACTS) -> dict[str, str]:
    """The packages, device and precision that each stage was computed with, for those that noted them."""
    files = {stage: artifacts / stage / "run.json" for stage in stages}
    noted = {stage: read_json(file).get("environment") for stage, file in files.items() if file.is_file()}
    return {
        stage: ", ".join(f"{name} {str(value).lower()}" for name, value in environment.items())
        for stage, environment in noted.items()
        if environment
    }


def software() -> str:
    """The releases that the figures depend on."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _SOFTWARE)])
