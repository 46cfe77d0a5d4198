import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.advice.tune.front import dominates, front, goes_on, knee

POINTS = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=12)


def test_a_point_dominates_that_is_no_worse_and_somewhere_better():
    assert dominates((-0.9, 10), (-0.9, 11))
    assert not dominates((-0.9, 10), (-0.9, 10))
    assert not dominates((-0.9, 12), (-0.8, 11))


def test_with_a_margin_only_a_clear_difference_of_the_first_counts():
    assert dominates((-0.9, 10), (-0.8, 10), margin=0.05)
    assert not dominates((-0.9, 10), (-0.86, 10), margin=0.05)
    assert not dominates((-0.9, 11), (-0.8, 10), margin=0.05)


@given(POINTS)
def test_a_front_is_what_nothing_dominates_and_it_dominates_or_equals_the_rest(points):
    places = front(points)
    kept = [points[place] for place in places]
    assert len(set(kept)) == len(kept)
    for place, point in enumerate(points):
        if place in places:
            assert not any(dominates(other, point) for other in points)
        else:
            assert any(dominates(other, point) or other == point for other in kept)


def test_the_knee_is_where_more_of_one_begins_to_cost_much_of_the_other():
    assert knee([(-0.60, 10), (-0.83, 20), (-0.84, 100)]) == 1
    assert knee([(-0.60, 10)]) == 0
    assert knee([(-0.60, 10), (-0.61, 60), (-0.84, 100)]) != 1


@pytest.mark.parametrize(("own", "goes"), [(0.50, False), (0.64, False), (0.75, True), (0.9, True)])
def test_with_one_objective_the_better_half_goes_on(own, goes):
    others = [(-accuracy,) for accuracy in (0.6, 0.65, 0.7, 0.72, 0.8)]
    assert goes_on((-own,), others, margin=0.001) == goes


def test_what_is_smaller_than_all_others_goes_on_however_inaccurate_it_is():
    others = [(-accuracy, 100.0) for accuracy in (0.7, 0.71, 0.72, 0.8)]
    assert goes_on((-0.4, 99.0), others, margin=0.01)
    assert not goes_on((-0.4, 101.0), others, margin=0.01)


def test_few_others_stop_nothing_and_neither_does_chance():
    assert goes_on((-0.1,), [(-0.9,)] * 3, margin=0.01)
    assert goes_on((-0.70,), [(-0.71,)] * 9, margin=0.02)
