"""Logits of one model from different runtimes."""

import numpy as np
import numpy.typing as npt

# Logits this close are tied: two runtimes add in different orders, and either class may come out first.
_TIE = 1e-4

Logits = npt.NDArray[np.float32]


def disagreements(expected: Logits, logits: Logits) -> npt.NDArray[np.intp]:
    """The rows on which two runtimes of one model, with logits [N, K], predict different classes, ties aside."""
    rows = np.arange(len(expected))
    first, second = expected.argmax(axis=1), logits.argmax(axis=1)
    return np.flatnonzero((first != second) & (expected[rows, first] - expected[rows, second] > _TIE))


def tied(logits: Logits) -> npt.NDArray[np.bool_]:
    """Rows of logits [N, K], K at least 2, whose best two are so close that runtimes may differ: [N]."""
    best: Logits = np.partition(logits, -2, axis=1)[:, -2:]
    close: npt.NDArray[np.bool_] = best[:, 1] - best[:, 0] <= _TIE
    return close
