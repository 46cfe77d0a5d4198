import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.stages.validate.duplicates import nearest_in_other_group

HASH_BYTES = 32


def brute_force(hashes: list[bytes], groups: list[str], bits: int) -> list[int | None]:
    """The distance to the nearest of another group, by comparing every pair."""
    codes = np.array([list(h) for h in hashes], np.uint8)
    nearest: list[int | None] = []
    for row in range(len(hashes)):
        distances = np.bitwise_count(codes ^ codes[row]).sum(axis=1)
        others = [int(d) for d, g in zip(distances, groups, strict=True) if g != groups[row] and d <= bits]
        nearest.append(min(others, default=None))
    return nearest


@st.composite
def families(draw: st.DrawFn) -> list[tuple[bytes, str]]:
    """Hashes of a few families, each a few flipped bits from its parent."""
    parents = draw(st.lists(st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES), min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(0, 25))):
        code = bytearray(draw(st.sampled_from(parents)))
        for bit in draw(st.lists(st.integers(0, HASH_BYTES * 8 - 1), max_size=14)):
            code[bit // 8] ^= 1 << bit % 8
        rows.append((bytes(code), draw(st.sampled_from(["train", "val", "test"]))))
    return rows


@given(families(), st.integers(0, 16))
def test_nearest_is_what_comparing_every_pair_finds(rows: list[tuple[bytes, str]], bits: int) -> None:
    hashes, groups = [h for h, _ in rows], [g for _, g in rows]
    nearest, distance = nearest_in_other_group([h.hex() for h in hashes], groups, bits)
    expected = brute_force(hashes, groups, bits)
    assert [int(d) if n >= 0 else None for n, d in zip(nearest, distance, strict=True)] == expected
    for row, other in enumerate(nearest):
        if other >= 0:
            assert groups[other] != groups[row]
            assert (np.frombuffer(hashes[row], np.uint8) != np.frombuffer(hashes[other], np.uint8)).any() or (
                distance[row] == 0
            )
