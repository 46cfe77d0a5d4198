"""A student that validation images don't show to be as good as its control does not ship."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reflux.components.stages.compress.__main__ import main as compress
from reflux.components.stages.evaluate.__main__ import main as evaluate
from tests.trained import run_here

pytestmark = pytest.mark.slow


def test_where_the_control_is_right_on_more_validation_images_it_ships_and_the_gain_it_would_have_lost_is_said(
    finished, here, capsys
):
    distilled, control = (Path("artifacts", stage, "model.safetensors") for stage in ("distill", "control"))
    better, worse = distilled.read_bytes(), control.read_bytes()
    control.write_bytes(better)
    distilled.write_bytes(worse)
    run_here("compress", compress)
    run_here("evaluate", evaluate)

    before, metrics = (json.loads((each / "artifacts/evaluate/metrics.json").read_text()) for each in (finished, here))
    table = pq.read_table("artifacts/evaluate/predictions.parquet")
    assert "Note: the control ships, as distillation did not pay: of 40 valid" in capsys.readouterr().out
    assert metrics["candidate"]["trained"] == "labels"
    assert table["onnx"].equals(table["control"])
    assert metrics["shipped"]["onnx"]["accuracy"] == metrics["control"]["accuracy"] == before["student"]["accuracy"]
    assert metrics["distilled"]["accuracy"] == before["control"]["accuracy"]
    gain, lost = before["gain"], metrics["distilled"]["gain"]
    assert (lost["accuracy"], lost["wins"], lost["losses"]) == (-gain["accuracy"], gain["losses"], gain["wins"])
    assert metrics["gain"] == {"accuracy": 0, "ci95": [0, 0], "p_value": 1, "wins": 0, "losses": 0}
    card = Path("artifacts/evaluate/model-card.md").read_text()
    assert "It was trained on labels alone" in card
    assert "The control ships, not the distilled student: of 40" in card
    assert "| distilled student |" in card
