import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.stages.ingest.splits import LEAST, assign, split_of, split_of_file

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=60)
shares = st.floats(0, 0.45)


def place(ids: list[int], val: float, test: float, given_splits: list[str | None] | None = None) -> list[str]:
    return of_classes([0] * len(ids), ids, val, test, given_splits)


def of_classes(
    labels: list[int], ids: list[int], val: float, test: float, given_splits: list[str | None] | None = None
) -> list[str]:
    given_ones = given_splits or [None] * len(ids)
    return assign(given_ones, np.array(labels, np.int64), np.array(ids, np.uint64), val, test).tolist()


enough = st.lists(st.integers(0, 2**64 - 1), min_size=4 * LEAST, max_size=60, unique=True)


@given(enough, hashes, shares, shares)
def test_added_images_only_release_what_was_held_out_for_its_rank(
    old: list[int], new: list[int], val: float, test: float
) -> None:
    before, after = place(old, val, test), place(old + new, val, test)[: len(old)]
    moved = [(each / 2**64, was, to) for each, was, to in zip(old, before, after, strict=True) if was != to]
    assert not [each for each, was, _ in moved if (was == "test" and each < test) or (was == "val" and each >= 1 - val)]
    assert before.count("train") <= LEAST or {to for _, _, to in moved} <= {"train"}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 9999), shares, shares)
def test_every_class_of_three_has_an_image_in_each_split(labels: list[int], seed: int, val: float, test: float) -> None:
    ids = np.random.default_rng(seed).integers(0, 2**64, len(labels), dtype=np.uint64).tolist()
    splits = of_classes(labels, ids, val + 0.01, test + 0.01)
    for label in set(labels):
        own = [split for split, each in zip(splits, labels, strict=True) if each == label]
        least = min(LEAST, max(1, len(own) // 4))
        assert len(own) < 3 or min(own.count(split) for split in ("train", "val", "test")) >= least


@pytest.mark.parametrize("count", range(3, 20))
def test_a_small_class_gives_a_quarter_to_each_split_and_any_other_three_images(count: int) -> None:
    ids = [2**63 + i for i in range(count)]  # none of them is taken for its hash
    splits = place(ids, 0.01, 0.01)
    least = max(1, count // 4) if count < 12 else 3
    assert (splits.count("val"), splits.count("test")) == (least, least)


def test_few_images_move_while_a_class_grows() -> None:
    rng = np.random.default_rng(0)
    moves = []
    for _ in range(8):
        ids = rng.integers(0, 2**64, 200, dtype=np.uint64).tolist()
        steps = [place(ids[:count], 0.15, 0.15) for count in range(4 * LEAST, 201, 4)]
        moves += [sum(len({step[i] for step in steps if i < len(step)}) > 1 for i in range(200))]
        assert min(step.count(split) for step in steps for split in ("val", "test")) >= LEAST
    assert np.mean(moves) / 200 == pytest.approx(0.02, abs=0.01)


@given(hashes, st.randoms(use_true_random=False), shares, shares)
def test_order_does_not_matter(ids: list[int], random: st.randoms, val: float, test: float) -> None:
    shuffled = random.sample(ids, len(ids))
    assert dict(zip(ids, place(ids, val, test), strict=True)) == dict(
        zip(shuffled, place(shuffled, val, test), strict=True)
    )


@given(hashes, st.floats(0.01, 0.45), st.floats(0.01, 0.45), shares)
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
