import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from components.core.significance import images_needed, mcnemar, optimism, paired_bootstrap, paired_score_bound

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200).map(
    lambda rows: np.array(rows, dtype=bool).T
)


def correct(wins: int, losses: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.array([True] * wins + [False] * losses + [True] * ties)
    b = np.array([False] * wins + [True] * losses + [True] * ties)
    return a, b


def test_interval_agrees_with_resampling_the_rows():
    a, b = correct(wins=60, losses=30, ties=410)
    rng = np.random.default_rng(1)
    difference = a.astype(int) - b.astype(int)
    rows = difference[rng.integers(0, a.size, size=(20_000, a.size))].mean(axis=1)

    interval = paired_bootstrap(a, b, resamples=20_000, seed=2)

    assert interval.difference == pytest.approx(0.06)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(rows, [0.025, 0.975]), abs=0.003)


def test_interval_covers_the_true_difference_at_its_level():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(600):
        draws = rng.choice([-1, 0, 1], p=[0.10, 0.75, 0.15], size=400)
        interval = paired_bootstrap(draws > 0, draws < 0, resamples=600, seed=trial)
        covered += interval.low <= 0.05 <= interval.high
    assert 0.92 <= covered / 600 <= 0.98


@given(pairs)
def test_interval_is_ordered_and_bounded_and_swapping_models_flips_the_difference(pair):
    a, b = pair
    interval, mirrored = (paired_bootstrap(*arguments, resamples=400, seed=0) for arguments in ((a, b), (b, a)))
    assert -1 <= interval.low <= interval.high <= 1
    assert interval.difference == pytest.approx(a.mean() - b.mean())
    assert mirrored.difference == -interval.difference


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_images_does_not_matter(pair, random):
    a, b = pair
    order = list(range(a.size))
    random.shuffle(order)
    assert paired_bootstrap(a, b, 200, seed=5) == paired_bootstrap(a[order], b[order], 200, seed=5)
    assert mcnemar(a, b) == mcnemar(a[order], b[order])


def test_equal_answers_leave_no_doubt():
    a, _ = correct(wins=3, losses=0, ties=7)
    interval = paired_bootstrap(a, a, resamples=200, seed=0)
    assert (interval.difference, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert mcnemar(a, a) == 1.0


def test_wider_confidence_gives_a_wider_interval():
    a, b = correct(wins=30, losses=20, ties=150)
    narrow, wide = (paired_bootstrap(a, b, 4000, seed=0, confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_mcnemar_is_the_exact_binomial_test_on_few_discordant_pairs():
    assert mcnemar(*correct(wins=15, losses=5, ties=100)) == pytest.approx(stats.binomtest(5, 20, 0.5).pvalue)


def test_mcnemar_is_the_corrected_chi_square_on_many():
    expected = stats.chi2.sf((abs(40 - 70) - 1) ** 2 / 110, df=1)
    assert mcnemar(*correct(wins=40, losses=70, ties=500)) == pytest.approx(expected)


def score(wins: int, losses: int, total: int, tested: float) -> float:
    """Tango's statistic less half an image, with the likeliest share of losses searched for, not solved for."""

    def unlikely(share: float) -> float:
        shares = np.array([share + tested, share, 1 - 2 * share - tested])
        return -stats.multinomial.logpmf([wins, losses, total - wins - losses], total, shares)

    least, most = max(0.0, -tested), (1 - tested) / 2
    share = optimize.minimize_scalar(unlikely, bounds=(least + 1e-9, most - 1e-9), method="bounded").x
    return (wins - losses - 0.5 - total * tested) / np.sqrt(total * (2 * share + tested - tested**2))


@pytest.mark.parametrize(("wins", "losses", "ties"), [(12, 2, 36), (0, 4, 996), (3, 0, 197), (60, 30, 410)])
def test_score_bound_is_where_the_statistic_reaches_its_level(wins, losses, ties):
    low = paired_score_bound(*correct(wins, losses, ties))
    assert score(wins, losses, wins + losses + ties, low) == pytest.approx(1.96, abs=0.01)


def test_score_bound_of_equal_answers_is_wide_when_images_are_few():
    for n in (100, 1000, 10_000):
        assert paired_score_bound(*correct(0, 0, n)) == pytest.approx(-4.8 / n, rel=0.05)
    assert paired_score_bound(*correct(0, 7, 0)) == -1.0


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.1, 0.5])
def test_images_needed_are_the_fewest_of_which_equal_answers_show_the_margin(margin):
    n = images_needed(margin)
    assert paired_score_bound(*correct(0, 0, n)) > -margin >= paired_score_bound(*correct(0, 0, n - 1))


def test_score_bound_agrees_with_the_bootstrap_on_many():
    a, b = correct(wins=600, losses=500, ties=8900)
    assert paired_score_bound(a, b) == pytest.approx(paired_bootstrap(a, b, 20_000, seed=0).low, abs=0.0002)


@given(pairs)
def test_score_bound_is_below_the_difference_and_rises_with_every_win(pair):
    a, b = pair
    low = paired_score_bound(a, b)
    assert -1 <= low <= a.mean() - b.mean()
    if not a.all():
        better = a.copy()
        better[np.flatnonzero(~a)[0]] = True
        assert paired_score_bound(better, b) >= low


def test_the_best_of_many_equal_models_is_no_better_than_the_bound():
    n, accuracy, trials = 1000, 0.85, 2000
    rng = np.random.default_rng(0)
    assert optimism(accuracy, n, 1) == 0
    for looks in (2, 10, 100):
        best = rng.binomial(n, accuracy, size=(trials, looks)).max(axis=1).mean() / n - accuracy
        assert best <= optimism(accuracy, n, looks) <= 2.4 * best


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_unpaired_answers_are_refused(a, b):
    with pytest.raises(ValueError, match="one length"):
        paired_bootstrap(np.array(a, dtype=bool), np.array(b, dtype=bool), 100, seed=0)
