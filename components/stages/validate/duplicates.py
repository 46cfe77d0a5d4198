"""Images that look alike: pairs of close perceptual hashes, without comparing every pair."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 65536
_NONE = np.iinfo(np.int64).max


def nearest_in_other_group(
    hashes: Sequence[str], groups: Sequence[str], bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The most similar image of another group, for each image.

    Args:
        hashes: perceptual hashes of equal length, as hex.
        groups: the group (split) of each image.
        bits: how many bits may differ.

    Returns:
        For each image the row of its nearest within ``bits`` in another group, or -1; and in how many bits they differ.
    """
    rows = len(hashes)
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    codes = np.concatenate([_codes(hashes[begin : begin + _ROWS_AT_ONCE]) for begin in range(0, rows, _ROWS_AT_ONCE)])
    unique, inverse = np.unique(codes, axis=0, return_inverse=True)
    names, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    # best[u, g]: distance * rows + row of the nearest image of group g, so that one minimum finds both.
    first = np.full((len(unique), len(names)), _NONE)
    np.minimum.at(first, (inverse, group), np.arange(rows))
    best = first.copy()
    for left, right, distance in _close_pairs(unique, bits):
        for here, there in ((left, right), (right, left)):
            other = first[there]
            np.minimum.at(best, here, np.where(other == _NONE, _NONE, other + distance[:, None] * rows))
    elsewhere = best[inverse]
    elsewhere[np.arange(rows), group] = _NONE
    nearest = elsewhere.min(axis=1)
    has_one = nearest != _NONE
    return np.where(has_one, nearest % rows, -1), np.where(has_one, nearest // rows, 0)


def _codes(hashes: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)


def _bits(codes: NDArray[np.uint8], begin: int, end: int) -> NDArray[np.uint8]:
    """Some bits of each code, packed; the others are not unpacked, which would take eight times the codes' memory."""
    first = begin // 8
    flat = np.unpackbits(codes[:, first : -(-end // 8)], axis=1)
    return np.packbits(flat[:, begin - 8 * first : end - 8 * first], axis=1)


def _close_pairs(
    codes: NDArray[np.uint8], bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of different codes that differ in at most ``bits`` bits; a pair may come more than once.

    Cut into bits + 1 pieces, two such codes agree in at least one piece (the pigeonhole principle): only codes that
    share a piece are compared.
    """
    for piece in np.array_split(np.arange(8 * codes.shape[1]), bits + 1) if bits else []:
        packed = np.ascontiguousarray(_bits(codes, int(piece[0]), int(piece[-1]) + 1))
        _, key = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True)
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        start, step = np.arange(len(order)), 1
        while len(start):
            start = start[start + step < len(order)]
            start = start[ordered[start] == ordered[start + step]]
            left, right = order[start], order[start + step]
            distance = np.bitwise_count(codes[left] ^ codes[right]).sum(axis=1, dtype=np.int64)
            close = distance <= bits
            yield left[close], right[close], distance[close]
            step += 1
