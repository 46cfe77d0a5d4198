"""The arms of the benchmark of seeds, in a checkout whose runs are only recorded."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import seeds
from benchmarks.harness.results import RESULTS, ROOT, read, write

HARD, FIRST = "distill.method=pseudo-labels", "pretrain.mode=self-supervised"
SELF = "pretrain.model=resnet8_slim"


def test_each_arm_of_a_seed_begins_with_the_default_params_which_stay(tmp_path: Path, monkeypatch):
    params, calls = tmp_path / "params.yaml", []
    params.write_text("seed: 0\n")
    for stage in ("evaluate", "control"):
        (tmp_path / "artifacts" / stage).mkdir(parents=True)
    weights = tmp_path / "artifacts/control/model.safetensors"
    weights.write_bytes(b"of the default")
    taught_by = []

    def reflux_run(checkout: Path, assignments: list[str]) -> float:
        calls.append((params.read_text(), list(assignments)))
        params.write_text(params.read_text() + f"# {assignments[0]}\n")
        if assignments[0] == SELF:
            taught_by.append((checkout / assignments[1].removeprefix("pretrain.weights=")).read_bytes())
        found = {"seed=7": (0.84, 0.78), HARD: (0.82, 0.78), SELF: (0.78, 0.78), FIRST: (0.85, 0.80)}
        student, control = found[assignments[0]]
        metrics = {"teacher": {"accuracy": 0.83}, "control": {"accuracy": control}}
        metrics |= {"shipped": {"onnx": {"accuracy": student}}}
        metrics |= {"distilled": {"accuracy": 0.77}} if assignments[0] == SELF else {}  # and the control ships
        (checkout / "artifacts/evaluate/metrics.json").write_text(json.dumps(metrics))
        return 100.0

    monkeypatch.setattr(seeds, "reflux_run", reflux_run)
    result = seeds.run(7, tmp_path)

    default = "seed: 0\n# seed=7\n"
    taught = [SELF, "pretrain.weights=control.safetensors", "finetune.strategy=none", "finetune.image_size=28"]
    arms = [[HARD], taught, [FIRST, "pretrain.learns=student"]]
    assert calls == [("seed: 0\n", ["seed=7"]), *((default, arm) for arm in arms)]
    assert taught_by == [b"of the default"]
    assert params.read_text() == default
    assert result == {
        "teacher": pytest.approx(83.0),
        "student": pytest.approx(84.0),
        "control": pytest.approx(78.0),
        "student, pseudo-labels": pytest.approx(82.0),
        "student, self-taught": pytest.approx(77.0),
        "student, self-supervised first": pytest.approx(85.0),
        "control, self-supervised first": pytest.approx(80.0),
        "student - control": pytest.approx(6.0),
        "student - student, pseudo-labels": pytest.approx(2.0),
        "student, self-taught - control": pytest.approx(-1.0),
        "student - student, self-taught": pytest.approx(7.0),
        "student - teacher": pytest.approx(1.0),
        "student, self-supervised first - control, self-supervised first": pytest.approx(5.0),
        "student, self-supervised first - student": pytest.approx(1.0),
    }


def test_the_table_has_each_seed_and_the_mean_with_its_interval(tmp_path: Path):
    results = {3: {"student": 84.0, "student - control": 5.0}, 5: {"student": 86.0, "student - control": 5.5}}
    write("seeds", seeds.figures_of(results), tmp_path)
    text = seeds.section(tmp_path)
    assert text.startswith("| | seed 3 | seed 5 | mean ± 95 % |\n")
    assert "| student | 84.00 | 86.00 | 85.00 ± 12.71 |\n" in text
    assert "| student - control | 5.00 | 5.50 | 5.25 ± 3.18 |\n" in text


def test_the_run_that_the_readme_shows_is_the_one_of_seed_0():
    readme, result = (ROOT / "README.md").read_text(encoding="utf-8"), read("seeds", RESULTS)
    shown = dict(re.findall(r"^(teacher|student|control) +([\d.]+) %", readme, re.MULTILINE))
    assert {name: float(value) for name, value in shown.items()} == {
        name: result[f"{name}, seed 0"].value for name in ("teacher", "student", "control")
    }
