"""The table of the benchmark of wider students, and a run of it on tiny inputs."""

import importlib
from contextlib import chdir
from pathlib import Path

import pytest

from benchmarks.edge import wider
from benchmarks.harness.results import write
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import load
from tests.workspaces import training_workspace


def test_the_table_has_a_row_for_each_file_and_the_gain_is_in_points(tmp_path: Path):
    sizes = {f"{network}, {each}, KB": 55.0 for network in wider.NETWORKS for each in wider.PRECISIONS}
    answers = {f"{network}, {each}": 84.0 for network in wider.NETWORKS for each in wider.PRECISIONS}
    results = [sizes | answers | {"wider, int8": 84.0 + seed, wider.GAIN: seed} for seed in (0.0, 1.0)]
    figures = wider.figures_of(results)
    assert {figure.unit for figure in figures} == {"%", "KB", "points"}
    write("wider", figures, tmp_path)
    table = wider.section(tmp_path).splitlines()
    assert table[2] == "| the student | fp32 | 55.0 | 84.00 |"
    assert table[5] == "| wider | int8 | 55.0 | 84.50 ± 6.35 |"
    assert table[7] == "wider, int8 - the student, fp32: 0.50 ± 6.35 points."


@pytest.mark.long
def test_both_networks_learn_from_the_soft_labels_of_a_run(tmp_path: Path, monkeypatch):
    checkout = training_workspace(tmp_path / "checkout")
    monkeypatch.chdir(checkout)
    for name in ("pretrain", "finetune", "label", "distill"):
        Path("artifacts", name).mkdir()
        importlib.import_module(f"reflux.components.stages.{name}.__main__").main(Stage(name, load_params()))
    own = load_params().seed
    for seed in (own, own + 1):
        (tmp_path / str(seed)).mkdir()
    found = wider.run(checkout, tmp_path / str(own), seed=own, width=2)
    other = wider.run(checkout, tmp_path / str(own + 1), seed=own + 1, width=2)
    with chdir(checkout):
        assert found["the student, fp32"] == wider.files_of(load(wider.STUDENT))["fp32"]
    assert other["the student, fp32, KB"] == found["the student, fp32, KB"]
    assert found["wider, int8, KB"] > found["the student, int8, KB"]
    assert found["wider, int8, KB"] < found["wider, fp32, KB"]
    assert found[wider.GAIN] == found["wider, int8"] - found["the student, fp32"]
