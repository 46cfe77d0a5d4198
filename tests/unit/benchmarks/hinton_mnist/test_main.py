import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.hinton_mnist.__main__ import LONGEST_WEIGHTS, best_raise, errors, shorten
from benchmarks.hinton_mnist.paper import PAPER, TEMPERATURES, WIDTHS, of_seeds, plot, table
from benchmarks.results import Figure

LABELS = np.array([0, 0, 1, 2])
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 3.0, 1.0], [0.0, 2.0, 0.0]])


def test_a_student_learns_from_its_teacher_what_the_labels_do_not_tell():
    command = [sys.executable, "-m", "benchmarks.hinton_mnist", "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    teacher, distilled, alone = map(int, re.findall(r"\d+", done.stdout)[1:])
    assert teacher < distilled < alone


def test_raising_a_bias_moves_answers_to_its_class():
    assert errors(LOGITS, LABELS) == 2
    assert errors(LOGITS, LABELS, 2.5, (2,)) == 3
    assert errors(LOGITS, LABELS, 1.5, (0,)) == 1


def test_the_best_raise_makes_the_fewest_errors_and_goes_no_further_than_that():
    assert best_raise(LOGITS, LABELS, (0,)) == 1.0
    assert best_raise(LOGITS, np.array([0, 1, 1, 1]), (0,)) == 0


def test_long_weights_are_scaled_back_and_short_ones_left():
    layer = torch.nn.Linear(4, 2)
    long, short = torch.full((4,), 5.0), torch.tensor([0.1, -0.2, 0.3, 0.0])
    layer.weight.data = torch.stack([long, short])
    shorten(layer)
    assert torch.allclose(layer.weight[0], long * LONGEST_WEIGHTS / 10)
    assert torch.equal(layer.weight[1], short)


def test_the_table_tells_within_better_and_worse():
    figures = of_seeds([{"teacher_errors": value, "seconds": 1.0} for value in (60.0, 70.0, 80.0)])
    assert figures[0] == Figure("teacher_errors", 70.0, 45.16, 94.84, "errors")
    assert table(figures).endswith("| `teacher_errors` | 67 | 70 | 45.16 … 94.84 | within |")
    for wrong, word in ((200.0, "worse"), (100.0, "better")):
        (figure,) = of_seeds([{"student_errors": wrong}])
        assert f"| {word} |" in table([figure])


def test_the_plot_is_of_every_width_and_temperature(tmp_path: Path):
    names = [f"errors_{width}_units_t{temperature:g}" for width in WIDTHS for temperature in TEMPERATURES]
    path = plot([Figure(name, 100.0, 90.0, 110.0, "errors") for name in names], tmp_path / "plot.png")
    assert path.stat().st_size > 10_000


def test_the_figures_that_the_project_promises_are_compared():
    promised = {"teacher_errors", "student_errors", "distilled_errors", "distilled_without_3_errors"}
    promised |= {"distilled_without_3_bias_errors", "only_7_8_error_rate", "only_7_8_bias_error_rate"}
    assert promised <= PAPER.keys()
