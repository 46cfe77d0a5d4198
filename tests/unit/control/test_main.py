"""The stage hands the student's params to what trains, and each split to what it is for."""

from pathlib import Path

import numpy as np
import pytest

from components.control import __main__ as control
from components.core import student
from components.core.params.file import override_params
from components.core.runtime.stage import Stage
from tests.workspaces import ids, training_workspace, watched


def test_the_control_learns_from_training_images_by_its_params_and_is_chosen_on_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    training_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("artifacts/control").mkdir()
    calls = watched(monkeypatch, student, "fit")
    control.main(Stage("control", override_params(["student.weight_decay=0.07", "student.clip_norm=0.01"])))
    (call,) = calls
    assert np.array_equal(call["train"].ids, ids("train"))
    assert np.array_equal(call["val"].ids, ids("val"))
    assert {group["weight_decay"] for group in call["optimizer"].param_groups} == {0.0, 0.07}
    assert all(row["grad_norm"] <= 0.0101 for row in call["result"])
