import numpy as np
import torch

from benchmarks.hinton_mnist.experiment import LONGEST_WEIGHTS, best_raise, errors, shorten

LABELS = np.array([0, 0, 1, 2])
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 3.0, 1.0], [0.0, 2.0, 0.0]])


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
