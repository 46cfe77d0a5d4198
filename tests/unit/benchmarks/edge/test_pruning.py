"""The table of the benchmark of pruning, and, where torch-pruning is, a run of it on tiny inputs."""

import importlib
from pathlib import Path

import pytest

from benchmarks.edge import pruning
from benchmarks.harness.results import write
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime.stage import Stage
from tests.workspaces import training_workspace


def test_the_table_has_a_row_for_each_share_with_the_sizes_of_both_networks(tmp_path: Path):
    results = [
        {pruning.WHOLE: 84.0 + seed, f"{pruning.WHOLE}, parameters": 47_306.0}
        | {f"0.5, {arm}": value + seed for arm, value in zip(pruning.ARMS, (82.0, 83.0, 80.0, -1.0), strict=True)}
        | {"0.5, pruned, parameters": 12_000.0, "0.5, dense, parameters": 12_100.0}
        for seed in (0.0, 1.0)
    ]
    figures = pruning.figures_of(results)
    assert {figure.unit for figure in figures} == {"%", "points", "parameters"}
    write("pruning", figures, tmp_path)
    table = pruning.section(tmp_path).splitlines()
    assert table[0] == "| channels removed | parameters (dense) | pruned | dense | dense, short | pruned - dense |"
    cells = "82.50 ± 6.35 | 83.50 ± 6.35 | 80.50 ± 6.35 | -0.50 ± 6.35"
    assert table[2] == f"| 50% | 12,000 (12,100) | {cells} |"
    assert table[4] == "The whole student: 84.50 ± 6.35, 47,306 parameters."
    write("pruning", pruning.figures_of(results[:1]), tmp_path)
    assert pruning.section(tmp_path).splitlines()[4] == "The whole student: 84.00, 47,306 parameters."


@pytest.mark.long
def test_each_network_learns_from_the_soft_labels_of_the_run_which_stays_as_it_was(tmp_path: Path, monkeypatch):
    pytest.importorskip("torch_pruning", reason="it needs torch-pruning")
    checkout = training_workspace(tmp_path / "checkout")
    monkeypatch.chdir(checkout)
    for name in ("pretrain", "finetune", "label"):
        Path("artifacts", name).mkdir()
        importlib.import_module(f"reflux.components.stages.{name}.__main__").main(Stage(name, load_params()))
    files = sorted(checkout.rglob("*"))
    (tmp_path / "scratch").mkdir()
    found = pruning.run(checkout, tmp_path / "scratch", seed=1, shares=[0.5], heal=10)
    assert sorted(checkout.rglob("*")) == files
    assert {f"0.5, {arm}" for arm in pruning.ARMS} < found.keys()
    assert found["0.5, pruned, parameters"] == found["0.5, dense, parameters"] < found[f"{pruning.WHOLE}, parameters"]
    assert found["0.5, pruned - dense"] == found["0.5, pruned"] - found["0.5, dense"]
