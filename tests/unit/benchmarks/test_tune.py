"""The benchmark of the search: its table, and on a tiny dataset what it measures."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks import tune
from benchmarks.harness.results import Figure, write
from reflux.components.advice.tune.study import begin
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from tests.workspaces import training_workspace

TINY = """
    student.model=resnet8_tiny tune.space.network=resnet8_tiny tune.space.width=1 tune.space.image_size=12
    compress.ships=onnx tune.space.ships=onnx tune.space.steps=[10,20] evaluate.latency_runs=20 student.eval_every=5
    registry.gates.latency_ms_p95.max=1000
"""


@pytest.mark.long
def test_both_teachers_train_the_same_candidates_and_fronts_are_judged_on_test_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(training_workspace(tmp_path / "run"))
    params = override_params(TINY.split())
    for name in ("pretrain", "finetune", "label"):
        Path("artifacts", name).mkdir()
        importlib.import_module(f"reflux.components.stages.{name}.__main__").main(Stage(name, params))
    search = tune.opened()
    figures = {figure.name: figure for figure in tune.speeds(search, 2)}
    assert list(figures)[2:] == [f"ratio, {what}" for what in tune.RATIOS]
    assert all(figure.value > 0 for figure in figures.values())
    steps = re.findall(r"^(.*) steps, (?:stored|the teacher)", capsys.readouterr().out, re.M)
    assert steps[0] == steps[1] == "resnet8_tiny, 20"
    assert steps[2] == steps[3] != steps[0]
    begin(search, "tiny")
    search.run()
    search.run()
    found = search.result()
    judged = {figure.name: figure.value for figure in tune.fronts(search, {1: found})}
    again = dict(re.findall(r"^trial (\d+): searched ([\d.]+) %", capsys.readouterr().out, re.M))
    assert set(again) >= {str(row.number) for row in found.front}
    assert judged["1 min, trained"] == 2
    accuracies = tune.accuracies(search, found.rows[0])
    assert accuracies["val"] == pytest.approx(100 * found.rows[0].figures["accuracy"]), "the search's own student"
    assert accuracies["test"] == pytest.approx(judged["1 min, present, test"], abs=0.01)


def test_the_tables_have_a_row_for_each_teacher_and_for_each_look_at_the_front(tmp_path):
    figures = [Figure(f"trials an hour, {name}", 60.0, 50.0, 70.0, "trials") for name in tune.TEACHERS.values()]
    figures += [Figure(f"ratio, {what}", 6.0, 5.0, 7.04, "x") for what in tune.RATIOS]
    for after, smallest in (("10 min", True), ("20 min", False)):
        figures += [tune.spread(f"{after}, {what}", [12], "students") for what in ("trained", "front")]
        values = {"KB": 54.321, "other seeds": 84.0, "test": 83.04}
        for place in ("present", *(["smallest"] if smallest else [])):
            figures += [tune.spread(f"{after}, {place}, {what}", [value], "") for what, value in values.items()]
        figures.append(tune.spread(f"{after}, searched - test", [-1.0, 2.0], "points"))
    write("tune", figures, tmp_path)
    lines = tune.section(tmp_path).splitlines()
    assert lines[2:6] == [
        "| stored soft labels | 60 (50 … 70) |",
        "| the teacher, asked at every step | 60 (50 … 70) |",
        "| ratio, wall time | 6.0 (5.0 … 7.0) |",
        "| ratio, CPU time | 6.0 (5.0 … 7.0) |",
    ]
    student = "54.3, 84.0 %, 83.0 %"
    assert lines[9] == f"| 10 min | 12 | 12 | {student} | {student} |  |  | 0.5 (-1.0 … 2.0) |"
    assert lines[10] == f"| 20 min | 12 | 12 | {student} |  |  |  | 0.5 (-1.0 … 2.0) |"
