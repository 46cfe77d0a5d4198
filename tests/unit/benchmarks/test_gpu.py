import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.results import ROOT
from tests.workspaces import PACKAGE

pytestmark = pytest.mark.slow

# What a bare GPU box does not have.
FORBIDDEN = ("mlflow", "prefect", "dvc", "pandas", "pyarrow", "great_expectations", "matplotlib", "pydantic", "psutil")
BARE = f"""
import sys
for name in {FORBIDDEN}:
    sys.modules[name] = None
import runpy
sys.argv[0] = "benchmarks.gpu"
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE, *arguments]
    # No CUDA device is seen, whatever the machine has.
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT / PACKAGE)}
    return subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_it_runs_where_only_torch_and_timm_are_installed(tmp_path: Path):
    done = gpu("--device", "cpu", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["figures"]
    assert {"images_per_s_bare_32px", "store_over_bare_32px", "live_over_bare_32px"} <= {f["name"] for f in figures}
    assert all(f["low"] <= f["value"] <= f["high"] for f in figures)


def test_without_cuda_it_says_so_in_one_sentence():
    done = gpu()
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no CUDA device" in done.stderr
