"""How long a run waits for a registry that is away."""

from reflux.flows.pipeline.release import between_attempts


def test_a_run_that_nobody_watches_waits_longer_and_never_more_than_a_minute_at_a_time():
    assert between_attempts(0) == [5]
    pauses = between_attempts(900)
    assert pauses == sorted(pauses)
    assert 900 <= sum(pauses) < 960
    assert max(pauses) == 60
