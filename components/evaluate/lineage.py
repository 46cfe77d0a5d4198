"""Where an evaluation comes from: code, data, runs and machine, as far as this copy of the project can say."""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ruamel.yaml import YAML

from components.core.artifacts import ARTIFACTS, read_json

_SOFTWARE = ("torch", "timm", "onnx", "onnxruntime")


def code() -> str:
    """The commit this checkout stands on, or why none can be named."""
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return "unknown: git is not installed"
    except subprocess.CalledProcessError:
        return "unknown: this folder is no git checkout with a commit"
    return f"git {found}"


def data_md5(lock: Path = Path("dvc.lock")) -> str | None:
    """DVC's hash of the dataset that ``ingest`` read last; None where DVC has not run."""
    if not lock.is_file():
        return None
    stages = YAML(typ="safe").load(lock.read_text(encoding="utf-8")).get("stages", {})
    found = stages.get("ingest", {}).get("deps", [])
    return next((dep.get("md5") for dep in found if not dep["path"].startswith("components/")), None)


def runs(stages: Sequence[str], artifacts: Path = ARTIFACTS) -> dict[str, str]:
    """The MLflow run that made each stage's artifacts, for those that were tracked."""
    files = {stage: artifacts / stage / "run.json" for stage in stages}
    found = {stage: read_json(file).get("mlflow_run_id") for stage, file in files.items() if file.is_file()}
    return {stage: run for stage, run in found.items() if run}


def software() -> str:
    """The releases that the figures depend on."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _SOFTWARE)])


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name, or its architecture where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*names, platform.processor(), platform.machine()]), "an unknown CPU")
