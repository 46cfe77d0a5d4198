import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from components.core.significance import mcnemar, paired_bootstrap

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200).map(
    lambda rows: np.array(rows, dtype=bool).T
)


def answers(wins: int, losses: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.array([True] * wins + [False] * losses + [True] * ties)
    b = np.array([False] * wins + [True] * losses + [True] * ties)
    return a, b


def test_interval_agrees_with_resampling_the_rows():
    a, b = answers(wins=60, losses=30, ties=410)
    rng = np.random.default_rng(1)
    difference = a.astype(int) - b.astype(int)
    rows = difference[rng.integers(0, a.size, size=(20_000, a.size))].mean(axis=1)

    found = paired_bootstrap(a, b, resamples=20_000, seed=2)

    assert found.difference == pytest.approx(0.06)
    assert [found.low, found.high] == pytest.approx(np.quantile(rows, [0.025, 0.975]), abs=0.003)


def test_interval_covers_the_true_difference_at_its_level():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(600):
        draws = rng.choice([-1, 0, 1], p=[0.10, 0.75, 0.15], size=400)
        found = paired_bootstrap(draws > 0, draws < 0, resamples=600, seed=trial)
        covered += found.low <= 0.05 <= found.high
    assert 0.92 <= covered / 600 <= 0.98


@given(pairs)
def test_interval_is_ordered_and_bounded_and_swapping_models_flips_the_difference(pair):
    a, b = pair
    found, mirrored = (paired_bootstrap(*arguments, resamples=400, seed=0) for arguments in ((a, b), (b, a)))
    assert -1 <= found.low <= found.high <= 1
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert mirrored.difference == -found.difference


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_images_does_not_matter(pair, random):
    a, b = pair
    order = list(range(a.size))
    random.shuffle(order)
    assert paired_bootstrap(a, b, 200, seed=5) == paired_bootstrap(a[order], b[order], 200, seed=5)
    assert mcnemar(a, b) == mcnemar(a[order], b[order])


def test_equal_answers_leave_no_doubt():
    a, _ = answers(wins=3, losses=0, ties=7)
    found = paired_bootstrap(a, a, resamples=200, seed=0)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert mcnemar(a, a) == 1.0


def test_wider_confidence_gives_a_wider_interval():
    a, b = answers(wins=30, losses=20, ties=150)
    narrow, wide = (paired_bootstrap(a, b, 4000, seed=0, confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_mcnemar_is_the_exact_binomial_test_on_few_discordant_pairs():
    assert mcnemar(*answers(wins=15, losses=5, ties=100)) == pytest.approx(stats.binomtest(5, 20, 0.5).pvalue)


def test_mcnemar_is_the_corrected_chi_square_on_many():
    expected = stats.chi2.sf((abs(40 - 70) - 1) ** 2 / 110, df=1)
    assert mcnemar(*answers(wins=40, losses=70, ties=500)) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_unpaired_answers_are_refused(a, b):
    with pytest.raises(ValueError, match="one length"):
        paired_bootstrap(np.array(a, dtype=bool), np.array(b, dtype=bool), 100, seed=0)
