import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from reflux.components.core.significance import (
    chance_to_reach,
    images_needed,
    margin_shown,
    mcnemar,
    optimism,
    paired_bootstrap,
    paired_score_bound,
    score_bound,
    share_bound,
    too_low,
)

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


@pytest.mark.parametrize(("wins", "losses"), [(15, 5), (5, 15), (1, 0), (40, 70), (600, 500)])
def test_mcnemar_counts_half_of_the_probability_of_what_was_observed(wins, losses):
    """The exact binomial test, less the probability of one of the two outcomes that are as likely as the observed."""
    exact, observed = stats.binomtest(losses, wins + losses, 0.5).pvalue, stats.binom.pmf(losses, wins + losses, 0.5)
    assert mcnemar(*correct(wins, losses, ties=100)) == pytest.approx(exact - observed)


def test_mcnemar_of_a_draw_is_one():
    """The chi-square with continuity correction gave 0.897 for 30 : 30."""
    assert mcnemar(*correct(wins=30, losses=30, ties=0)) == pytest.approx(1.0)
    assert mcnemar(*correct(wins=0, losses=0, ties=9)) == 1.0


def test_mid_p_errs_about_as_often_as_it_says_and_more_often_than_the_exact_test():
    """Two equal models that differ on 200 images, through all outcomes."""
    outcomes = range(201)
    chances = stats.binom.pmf(outcomes, 200, 0.5)
    errors = {
        "mid-p": sum(p for k, p in zip(outcomes, chances, strict=True) if mcnemar(*correct(k, 200 - k, 0)) < 0.05),
        "exact": sum(p for k, p in zip(outcomes, chances, strict=True) if stats.binomtest(k, 200, 0.5).pvalue < 0.05),
    }
    assert errors["exact"] < errors["mid-p"] < 0.06


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


def test_less_confidence_is_content_with_less():
    pair = correct(60, 30, 410)
    assert paired_score_bound(*pair, 0.8) > paired_score_bound(*pair)
    assert margin_shown(300, 0.8) < margin_shown(300)


def test_answers_may_be_zeros_and_ones():
    pair = correct(60, 30, 410)
    assert paired_score_bound(*(each.astype(int) for each in pair)) == paired_score_bound(*pair)


def test_score_bound_takes_counts_as_well():
    assert score_bound(60, 30, 500) == paired_score_bound(*correct(60, 30, 410))


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.1, 0.5])
def test_images_needed_are_the_fewest_of_which_equal_answers_show_the_margin(margin):
    n = images_needed(margin)
    assert paired_score_bound(*correct(0, 0, n)) > -margin >= paired_score_bound(*correct(0, 0, n - 1))


@pytest.mark.parametrize("disagreement", [0.02, 0.1, 0.5])
def test_models_that_differ_on_more_images_need_more(disagreement):
    n = images_needed(0.02, disagreement)
    differing = round(n * disagreement / 2)
    fewer, more = (paired_score_bound(*correct(differing, differing, m - 2 * differing)) for m in (n - 90, n + 90))
    assert fewer < -0.02 < more


def test_the_margin_that_images_show_is_that_of_which_they_are_needed():
    assert margin_shown(476) < 0.01 < margin_shown(475)
    assert images_needed(margin_shown(300) + 1e-9) == 300


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


def test_the_best_of_equal_models_looks_as_much_better_as_is_expected():
    """A tenth of the images is a toss-up for each model, so that two of them differ on a twentieth."""
    n, trials = 1000, 4000
    rng = np.random.default_rng(0)
    for models in (2, 10, 100):
        best = rng.binomial(n // 10, 0.5, size=(trials, models)).max(axis=1).mean() / n - 0.05
        assert optimism(0.05, n, models) == pytest.approx(best, rel=0.03)


def test_one_model_owes_nothing_to_a_choice_and_more_models_owe_more():
    luck = [optimism(0.1, 5000, models) for models in (1, 2, 50, 10_000)]
    assert luck[0] == 0.0
    assert luck == sorted(set(luck))


@pytest.mark.parametrize(("right", "n"), [(0, 30), (24, 30), (30, 30), (4000, 5000)])
def test_the_bounds_of_a_share_are_those_of_clopper_and_pearson(right, n):
    low, high = proportion_confint(right, n, alpha=0.1, method="beta")
    assert share_bound(right, n, "lower", 0.95) == pytest.approx(low)
    assert share_bound(right, n, "upper", 0.95) == pytest.approx(high)


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_the_chance_to_reach_a_minimum_is_the_share_of_draws(confidence):
    draws = np.random.default_rng(0).binomial(500, 0.79, size=20_000)
    shown = draws / 500 if confidence is None else stats.beta.ppf(1 - confidence, draws, 501 - draws)
    assert chance_to_reach(0.79, 500, 0.8, confidence) == pytest.approx((shown >= 0.8).mean(), abs=0.01)


def test_a_model_that_is_just_below_a_gate_passes_a_point_estimate_often_and_a_bound_seldom():
    assert chance_to_reach(0.795, 5000, 0.8) == pytest.approx(0.196, abs=0.001)
    assert chance_to_reach(0.8, 5000, 0.8, 0.95) <= 0.05
    assert chance_to_reach(0.5, 4, 0.5) == pytest.approx(11 / 16)  # two of four right answers are enough
    assert chance_to_reach(0.9, 3, 1.0) == pytest.approx(0.9**3)  # all of them must be right


def test_the_worst_of_many_groups_is_low_by_chance():
    alone, of_ten = too_low([(9, 30)], 0.5), too_low([(9, 30), *[(20, 30)] * 9], 0.5)
    assert alone == pytest.approx(stats.binomtest(9, 30, 0.5, alternative="less").pvalue)
    assert of_ten == pytest.approx(10 * alone)
    assert too_low([(15, 30)] * 10, 0.5) == 1.0


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_unpaired_answers_are_refused(a, b):
    with pytest.raises(ValueError, match="one length"):
        paired_bootstrap(np.array(a, dtype=bool), np.array(b, dtype=bool), 100, seed=0)
