import pytest

from benchmarks.throughput.arm import Arm
from benchmarks.throughput.figures import break_even, figures_of
from benchmarks.throughput.report import BARS, TABLE
from benchmarks.throughput.setting import Setting

SETTING = Setting("resnet8_slim", "resnet50", 64, 16, 1, "")


def test_the_store_has_paid_for_itself_when_both_ways_took_as_long():
    epochs, seconds = break_even(store=[1000.0], live=[200.0], fill=[500.0], images=100)
    assert seconds.value == 100 * 4 / 500
    assert epochs.value * 100 / 200 == pytest.approx(seconds.value + epochs.value * 100 / 1000)


def test_the_readme_shows_every_figure_that_is_asked_for():
    ways = ("eager", "all_on", "fp32")
    td = [f"torchdistill{other}_{way}" for other in ("", "_resnet50", "_cached") for way in ways]
    ours = ["bare", "store", "store_eager", "store_all_on", "live_fp32", "live", "timm_fp32", "plain_fp32"]
    ours += ["live_recipe", "fill_recipe"]
    rates = {name: [100.0 + number, 110.0 + number] for number, name in enumerate(td + ours)}
    arms = {name: Arm("bare", SETTING, rates=values, peak_mb=300) for name, values in rates.items()}
    wide = {
        name: arms[name] for name in ("bare", "store", "live_fp32", "torchdistill_fp32", "torchdistill_cached_fp32")
    }
    measured = [*figures_of(arms, 9500), *figures_of(wide, 9500, "_resnet8x4")]
    figures = {figure.name: figure for figure in measured}
    of_the_pipeline = {
        "first_run_s",
        "training_s",
        "orchestration_over_training",
        "wall_over_busy",
        "unchanged_rerun_s",
    }
    assert (set(TABLE) | set(BARS)) - set(figures) == of_the_pipeline
    assert {figure.name for figure in measured if figure.unit == "x"} <= set(TABLE)
    # Of either side's two ways with everything on, the faster one counts.
    assert figures["store_over_torchdistill_best"].high == pytest.approx(
        rates["store_all_on"][0] / rates["torchdistill_all_on"][0], rel=1e-3
    )
