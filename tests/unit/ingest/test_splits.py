import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest.splits import assign, split_of, split_of_file

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=60)
shares = st.floats(0, 0.45)


def place(ids: list[int], val: float, test: float, given_splits: list[str | None] | None = None) -> list[str]:
    return assign(given_splits or [None] * len(ids), np.array(ids, np.uint64), val, test).tolist()


@given(hashes, hashes, shares, shares)
def test_added_images_move_none(old: list[int], new: list[int], val: float, test: float) -> None:
    assert place(old + new, val, test)[: len(old)] == place(old, val, test)


@given(hashes, st.randoms(use_true_random=False), shares, shares)
def test_order_does_not_matter(ids: list[int], random: st.randoms, val: float, test: float) -> None:
    shuffled = random.sample(ids, len(ids))
    assert dict(zip(ids, place(ids, val, test), strict=True)) == dict(
        zip(shuffled, place(shuffled, val, test), strict=True)
    )


@given(hashes, shares, shares, shares)
def test_another_share_of_validation_leaves_the_test_split(
    ids: list[int], val: float, other: float, test: float
) -> None:
    before, after = place(ids, val, test), place(ids, other, test)
    assert [s == "test" for s in before] == [s == "test" for s in after]


def test_shares_are_what_was_asked_for() -> None:
    ids = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64).tolist()
    splits = place(ids, 0.15, 0.25)
    assert splits.count("val") / len(ids) == pytest.approx(0.15, abs=0.01)
    assert splits.count("test") / len(ids) == pytest.approx(0.25, abs=0.01)


LOW, MIDDLE, HIGH = 0, 2**63, 2**64 - 1


@pytest.mark.parametrize(
    ("given_splits", "expected"),
    [
        ([None, None, None], ["test", "train", "val"]),
        (["train", "train", "train"], ["test", "train", "val"]),
        (["train", "test", "train"], ["train", "test", "val"]),
        (["train", "val", "train"], ["test", "val", "train"]),
        (["unlabeled", None, "unlabeled"], ["unlabeled", "train", "unlabeled"]),
        (["test", "val", None], ["test", "val", "train"]),
    ],
)
def test_only_what_the_source_lacks_is_carved_out(given_splits: list[str | None], expected: list[str]) -> None:
    assert place([LOW, MIDDLE, HIGH], 0.2, 0.2, given_splits) == expected


def test_names_of_splits() -> None:
    assert [split_of(w) for w in ("Train", "validation", "dev", "TEST", "unlabeled", "trains", "cat")] == [
        *("train", "val", "val", "test", "unlabeled", None, None)
    ]
    splits = [split_of_file(w) for w in ("train-00000-of-00002", "validation", "test_images", "training.1", "trains")]
    assert splits == ["train", "val", "test", "train", None]
