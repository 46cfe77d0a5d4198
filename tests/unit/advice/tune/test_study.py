import time

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from reflux.components.advice.tune.findings import importance
from reflux.components.advice.tune.storage import study_name
from reflux.components.advice.tune.study import OutOfTime, sampler, time_limit


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_the_knob_that_leads_to_the_best_counts_most(direction, sign):
    """Accuracy is best at a high x, whatever y is; low accuracies come with any x, but a low y."""
    study, rng = optuna.create_study(directions=[direction, "minimize"]), np.random.default_rng(0)
    drawn = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    for x, y in rng.uniform(size=(200, 2)):
        value = 0.5 + x if x > 0.8 else 0.5 * (y > 0.2)
        study.add_trial(create_trial(params={"x": x, "y": y}, distributions=drawn, values=[sign * value, 1.0]))
    shares = importance(study)
    assert list(shares) == ["x", "y"]
    assert shares["x"] > 0.8


def test_few_trials_say_nothing_of_importance():
    assert importance(optuna.create_study(directions=["maximize", "minimize"])) == {}


def test_a_trial_is_drawn_by_the_seed_and_its_number_alone():
    def drawn(seed: int, number: int) -> float:
        study = optuna.create_study(sampler=sampler(seed, number))
        return study.ask({"x": FloatDistribution(0, 1)}).params["x"]

    assert drawn(0, 3) == drawn(0, 3)
    assert len({drawn(0, 3), drawn(0, 4), drawn(1, 3)}) == 3


def test_a_study_is_named_after_what_decides_it():
    assert study_name("shapes", {"a": 1, "b": 2}) == study_name("shapes", {"b": 2, "a": 1})
    assert study_name("shapes", {"a": 1}) != study_name("shapes", {"a": 2})
    assert study_name("shapes", {}).startswith("shapes-")


def test_time_that_is_over_waits_for_a_write_to_the_database():
    """A transaction of SQLite that is broken off can keep it locked, for the next one of the same process, too."""
    written = time.monotonic() + 0.4
    with pytest.raises(OutOfTime), time_limit(time.monotonic() + 0.1, lambda: time.monotonic() < written):
        while time.monotonic() < written + 60:
            pass
    assert written <= time.monotonic() < written + 30
