import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from reflux.components.core.errors import UserError
from reflux.components.stages.evaluate import metrics


def random_answers(seed: int, n: int = 200, classes: int = 5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * 2
    logits[np.arange(n), labels] += 1.5
    return logits.astype(np.float32), labels


def softmax(logits):
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@given(st.integers(0, 10_000))
def test_figures_are_those_of_scikit_learn(seed):
    logits, labels = random_answers(seed)
    predicted, figures = logits.argmax(axis=1), metrics.measure(logits, labels)
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert figures["worst_class_recall"] == pytest.approx(recall_score(labels, predicted, average=None).min())
    assert figures["nll"] == pytest.approx(log_loss(labels, softmax(logits), labels=range(5)), rel=1e-6)
    assert (metrics.confusion(logits, labels) == confusion_matrix(labels, predicted, labels=range(5))).all()


@given(st.integers(0, 10_000))
def test_the_bins_make_up_the_calibration_error(seed):
    logits, labels = random_answers(seed)
    bins = metrics.reliability(logits, labels)
    gap = (bins.count * np.abs(bins.accuracy - bins.confidence)).sum() / bins.count.sum()
    assert bins.count.sum() == len(labels)
    assert metrics.measure(logits, labels)["ece"] == pytest.approx(gap, abs=1e-6)


def test_calibration_error_by_hand():
    # Four images at confidence 0.8 of which three are right, one at 0.6 that is wrong: (4 * 0.05 + 1 * 0.6) / 5.
    logits = np.log(np.array([[0.8, 0.2]] * 4 + [[0.6, 0.4]]))
    labels = np.array([0, 0, 0, 1, 1])
    assert metrics.measure(logits, labels)["ece"] == pytest.approx(0.16, abs=1e-6)
    assert metrics.confidences(logits) == pytest.approx([0.8] * 4 + [0.6])


def test_a_class_without_images_is_not_the_worst():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1]] * 9
    labels = np.array([0, 0, 1])
    figures = metrics.measure(logits, labels)
    assert figures["worst_class_recall"] == 1.0
    assert figures["macro_f1"] == 1.0
    assert np.isnan(metrics.recalls(metrics.confusion(logits, labels))[2])


def test_a_figure_has_one_function_and_is_a_number(monkeypatch):
    with pytest.raises(ValueError, match="Two figures are named ece"):
        metrics.figure("ece")(lambda logits, labels: 0.0)
    monkeypatch.setitem(metrics.MEASURES, "mine", lambda logits, labels: np.nan)
    with pytest.raises(UserError, match="The figure mine is nan on 200 images"):
        metrics.measure(*random_answers(0))


def test_confidence_does_not_overflow():
    logits = np.array([[1e4, -1e4], [0.0, 0.0]], np.float32)
    assert metrics.confidences(logits) == pytest.approx([1.0, 0.5])


def test_the_worst_mistakes_are_the_most_confident_wrong_ones():
    logits = np.array([[9.0, 0.0], [0.0, 1.0], [0.0, 5.0], [0.0, 7.0]], np.float32)
    labels = np.array([0, 0, 0, 1])
    assert metrics.worst_mistakes(logits, labels, 5).tolist() == [2, 1]
    assert metrics.worst_mistakes(logits, labels, 1).tolist() == [2]
    assert metrics.worst_mistakes(logits, np.array([0, 1, 1, 1]), 5).tolist() == []


def test_the_likeliest_confusions_are_the_most_images_of_one_class_taken_for_another():
    counts = np.array([[90, 8, 2], [9, 1, 0], [0, 0, 5]])
    assert metrics.confused(counts, 2) == [(1, 0), (0, 1)]
    assert metrics.confused(counts, 9) == [(1, 0), (0, 1), (0, 2)]
    assert metrics.confused(np.diag([3, 4]), 9) == []


def test_the_mistakes_of_a_pair_are_its_own():
    logits, labels = np.eye(3)[[1, 1, 0, 2, 1]] * [[5], [9], [9], [9], [9]], np.array([0, 0, 0, 0, 1])
    assert metrics.worst_mistakes(logits, labels, 5, (0, 1)).tolist() == [1, 0]
