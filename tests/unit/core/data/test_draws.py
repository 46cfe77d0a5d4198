import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.core.data.draws import batch_indices, views_key


def test_draws_are_the_published_splitmix64():
    """The first outputs of SplitMix64 from state 0, as printed by Vigna's reference code."""
    from reflux.components.core.data.draws import _GOLDEN, _splitmix64

    states = np.arange(3, dtype=np.uint64) * _GOLDEN
    assert [hex(value) for value in _splitmix64(states)] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


@given(size=st.integers(1, 40), batch_size=st.integers(1, 64), seed=st.integers(0, 2**32 - 1))
def test_every_epoch_visits_every_image_once(size: int, batch_size: int, seed: int):
    steps = -(-3 * size // batch_size)
    parts = [batch_indices(seed, step, size, batch_size) for step in range(steps)]
    indices, epochs = (np.concatenate(side) for side in zip(*parts, strict=True))
    for epoch in range(3):
        assert sorted(indices[epochs == epoch]) == list(range(size))


def test_the_key_changes_with_all_that_decides_a_view():
    ids = np.arange(4, dtype=np.uint64)
    keys = {
        views_key(ids, 0, {"shift": 0.1}),
        views_key(ids, 1, {"shift": 0.1}),
        views_key(ids, 0, {"shift": 0.2}),
        views_key(ids[:3], 0, {"shift": 0.1}),
    }
    assert len(keys) == 4
    assert views_key(ids, 0, {"shift": 0.1}) in keys
