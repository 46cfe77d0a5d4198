import numpy as np

from reflux.components.core.export import logits as logits_module


def test_logits_are_tied_where_a_runtime_could_turn_them_round():
    logits = np.array([[0, 1, 1.00005], [0, 1, 1.001], [5, 5, 0], [-1, -2, -3]], np.float32)
    assert logits_module.tied(logits).tolist() == [True, False, True, False]


def test_a_flip_is_a_disagreement_unless_the_logits_are_tied():
    expected = np.array([[2.0, 1.0], [1.0, 1.00005], [0.0, 3.0]], np.float32)
    logits = np.array([[1.0, 2.0], [1.00005, 1.0], [0.0, 3.0]], np.float32)
    assert logits_module.disagreements(expected, logits).tolist() == [0]
