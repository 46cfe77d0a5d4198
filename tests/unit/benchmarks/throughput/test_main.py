import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results import ROOT
from benchmarks.show import BARS, TABLE
from benchmarks.throughput.__main__ import Arm, break_even, check_agreement, figures_of
from benchmarks.throughput.setting import Setting

SETTING = Setting("resnet8_slim", "resnet50", 64, 16, 1, "")


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("switches", "loss", "agrees"),
    [
        ({}, 2.3, True),
        ({}, 2.3001, False),
        ({"bf16": True}, 2.31, True),
        ({"bf16": True}, 2.4, False),
        ({}, float("nan"), False),
    ],
)
def test_an_arm_that_trains_something_else_is_not_timed(switches: dict[str, bool], loss: float, agrees: bool):
    arms = {
        "one": Arm("bare", SETTING, loss=2.3),
        "two": Arm("store", SETTING, loss=2.300002),
        "other": Arm("live", SETTING, switches, loss=loss),
    }
    if agrees:
        check_agreement(arms)
    else:
        with pytest.raises(SystemExit, match="does not train the same"):
            check_agreement(arms)


def test_the_store_has_paid_for_itself_when_both_ways_took_as_long():
    epochs, seconds = break_even(store=[1000.0], live=[200.0], fill=[500.0], images=100)
    assert seconds.value == 100 * 4 / 500
    assert epochs.value * 100 / 200 == pytest.approx(seconds.value + epochs.value * 100 / 1000)


def test_the_readme_shows_every_figure_that_is_asked_for():
    td = [f"torchdistill{teacher}_{way}" for teacher in ("", "_resnet50") for way in ("eager", "all_on", "fp32")]
    ours = ["bare", "store", "store_eager", "store_all_on", "live_fp32", "live", "timm_fp32", "plain_fp32"]
    ours += ["live_recipe", "fill_recipe"]
    rates = {name: [100.0 + number, 110.0 + number] for number, name in enumerate(td + ours)}
    arms = {name: Arm("bare", SETTING, rates=values, peak_mb=300) for name, values in rates.items()}
    figures = {figure.name: figure for figure in figures_of(arms, 9500)}
    of_the_pipeline = {"orchestration_over_training", "wall_over_busy", "unchanged_rerun_s"}
    assert (set(TABLE) | set(BARS)) - set(figures) == of_the_pipeline
    # Of either side's two ways with everything on, the faster one counts.
    assert figures["store_over_torchdistill_best"].high == pytest.approx(
        rates["store_all_on"][0] / rates["torchdistill_all_on"][0], rel=1e-3
    )
