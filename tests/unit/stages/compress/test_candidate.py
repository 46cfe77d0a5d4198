import numpy as np
import pytest

from reflux.components.stages.compress.candidate import choose


def answers(wins: int, losses: int, n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Where a student and its control were right, of which each alone got some images right."""
    student, control = np.ones(n, bool), np.ones(n, bool)
    control[:wins], student[wins : wins + losses] = False, False
    return student, control


@pytest.mark.parametrize(
    ("wins", "losses", "trained"), [(3, 2, "distilled"), (2, 2, "distilled"), (0, 0, "distilled"), (2, 3, "labels")]
)
def test_the_one_with_more_right_answers_ships_and_the_student_where_they_have_as_many(wins, losses, trained):
    chosen = choose(*answers(wins, losses))
    assert chosen.trained == trained
    assert chosen.why == (
        f"of 100 validation images the distilled student is right on {100 - losses}, its control, trained on the "
        f"labels alone, on {100 - wins} ({wins} that only the student gets right, {losses} that only the control does)"
    )


@pytest.mark.parametrize(("n", "apart"), [(50, 0.2), (500, 0.1), (5000, 0.08)])
def test_the_regret_of_the_rule_is_as_small_as_it_says(n, apart):
    """For students truly worse or better than their control by up to four standard errors, in drawn answers."""
    rng, bound = np.random.default_rng(0), 0.17 * np.sqrt(apart / n)
    regrets = []
    for difference in np.linspace(-4, 4, 33) * np.sqrt(apart / n):
        if abs(difference) > apart:
            continue
        shares = [(apart + difference) / 2, (apart - difference) / 2, 1 - apart]
        wrong = [
            (choose(*answers(wins, losses, n)).trained == "distilled") == (difference < 0)
            for wins, losses, _ in rng.multinomial(n, shares, size=1000)
        ]
        regrets.append(abs(difference) * np.mean(wrong))
    # Ties, which the student wins, add to it where the answers tell few images apart.
    assert 0.8 * bound < max(regrets) < 1.4 * bound
