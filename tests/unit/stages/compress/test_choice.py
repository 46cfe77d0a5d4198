import numpy as np
import pytest

from reflux.components.core.contract import FILES
from reflux.components.core.params.sections import Compress
from reflux.components.stages.compress.choice import Choice, choose, fastest, smallest


def answers(n: int, wrong: int) -> np.ndarray:
    return np.arange(n) >= wrong


@pytest.mark.parametrize("kind", ["onnx", "executorch"])
def test_an_fp32_file_that_is_named_ships_as_it_is_the_student(kind):
    choice = choose(Compress(ships=kind), {}, None)
    assert choice == Choice(kind, FILES[kind].name, "compress.ships names it")


@pytest.mark.parametrize(
    ("n", "lost", "max_loss", "kind"),
    [
        (500, 0, 0.02, "onnx_int8"),
        (500, -3, 0.02, "onnx_int8"),
        (500, 10, 0.02, "onnx_int8"),
        (500, 11, 0.02, "onnx"),
        (500, 11, 0.05, "onnx_int8"),
        (30, 0, 0.02, "onnx_int8"),
        (30, 1, 0.02, "onnx"),
    ],
)
def test_the_int8_file_ships_where_it_loses_no_more_than_allowed(n, lost, max_loss, kind):
    choice = smallest(answers(n, 20 + lost), answers(n, 20), max_loss)
    assert choice.kind == kind
    assert f"on {n} validation images the int8 file is right on {n - 20 - lost}, the fp32 one on {n - 20}" in choice.why


def test_how_much_it_may_lose_on_other_images_is_said():
    why = smallest(answers(500, 13), answers(500, 9), 0.02).why
    assert "a loss of 0.80 points (on new images at most 2.18, with 97.5 % confidence)" in why
    assert why.endswith("where compress.max_loss is 2")


@pytest.mark.parametrize(("times", "kind"), [((0.7, 0.6, 0.99), "onnx_int8"), ((0.9, 0.8, 1.0), "onnx")])
def test_where_speed_is_preferred_the_int8_file_ships_if_it_surely_is_faster(times, kind):
    choice = fastest(smallest(answers(500, 9), answers(500, 9), 0.02), times)
    assert (choice.kind, choice.file) == (kind, FILES[kind].name)
    assert choice.why.endswith("; it takes {:.2f} ({:.2f} to {:.2f}) of the fp32 file's CPU time".format(*times))
