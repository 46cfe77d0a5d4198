import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.results import ROOT


@pytest.mark.long
def test_every_arm_trains_the_same_and_the_figures_are_written(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--threads", "1", "--out", str(tmp_path)]
    # It refuses to time arms whose first losses differ.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "throughput.json").read_text(encoding="utf-8"))
    assert list(written) == ["commit", "machine", "figures"]
    figures = {figure.pop("name"): figure for figure in written["figures"]}
    arms = ("bare", "store", "live_fp32", "timm_fp32", "plain_fp32", "fill_recipe")
    assert {"store_over_bare", "memory_over_plain"} | {f"images_per_s_{arm}" for arm in arms} <= set(figures)
    for figure in figures.values():
        assert list(figure) == ["value", "low", "high", "unit"]
        assert 0 < figure["low"] <= figure["value"] <= figure["high"]
