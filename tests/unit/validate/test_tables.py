import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from components.validate.duplicates import nearest_in_other_group
from components.validate.tables import class_counts, class_shifts, images, labeled, shares_of_classes

HASH_BYTES = 32


def brute_force(hashes: list[bytes], groups: list[str], bits: int) -> list[int | None]:
    """The distance to the nearest of another group, by comparing every pair."""
    codes = np.array([list(h) for h in hashes], np.uint8)
    found: list[int | None] = []
    for row in range(len(hashes)):
        distances = np.bitwise_count(codes ^ codes[row]).sum(axis=1)
        others = [int(d) for d, g in zip(distances, groups, strict=True) if g != groups[row] and d <= bits]
        found.append(min(others, default=None))
    return found


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


def manifest(*rows: tuple[str, str, int | None, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["path", "split", "label", "sha256", "phash"])
    return table.astype({"label": "Int64"})


ZERO, ONE_BIT, FAR = "0" * 64, "1" + "0" * 63, "f" * 64


def test_doubles_and_look_alikes_of_other_splits_are_named() -> None:
    table = images(
        manifest(
            ("a", "train", 0, "s1", ZERO),
            ("b", "test", 0, "s1", ZERO),
            ("c", "val", 0, "s2", ONE_BIT),
            ("d", "train", 0, "s3", ONE_BIT),
            ("e", "train", 0, "s4", ZERO),
            ("f", "train", 0, "s5", FAR),
        ),
        near_duplicate_bits=1,
    ).set_index("path")
    assert table["same_image_in"].dropna().to_dict() == {"a": "b in test", "b": "a in train"}
    assert table["similar_image_in"].dropna().to_dict() == {
        "c": "d in train (0 bits apart)",
        "d": "c in val (0 bits apart)",
        "e": "c in val (1 bits apart)",
    }


def test_labels_are_put_into_words() -> None:
    table = labeled(
        manifest(
            ("a", "train", 0, "s1", ZERO),
            ("b", "train", 1, "s1", ZERO),
            ("c", "val", None, "s2", ZERO),
            ("d", "test", 5, "s3", ZERO),
            ("e", "unlabeled", None, "s4", ZERO),
        ),
        ["cat", "dog"],
    ).set_index("path")
    assert table["label_name"].to_dict() == {"a": "cat", "b": "dog", "c": "no label", "d": "unknown label 5"}
    assert table["other_label_in"].dropna().to_dict() == {"a": "b (labeled dog)", "b": "a (labeled cat)"}


def test_counts_include_classes_that_a_split_lacks() -> None:
    rows = labeled(manifest(("a", "train", 0, "s1", ZERO), ("b", "train", 0, "s2", ZERO)), ["cat", "dog"])
    counts = class_counts(rows, ["cat", "dog"]).set_index("class_and_split")["images"]
    assert counts.to_dict() == {
        **{"cat in train": 2, "dog in train": 0, "cat in val": 0, "dog in val": 0},
        **{"cat in test": 0, "dog in test": 0},
    }
    assert shares_of_classes(rows, ["cat", "dog"]) == {"cat": 1.0, "dog": 0.0}


def test_shifts_include_new_and_vanished_classes() -> None:
    shifts = class_shifts({"cat": 0.7, "new": 0.3}, {"cat": 0.6, "old": 0.4}).set_index("class_name")["shift"]
    assert {name: round(value, 6) for name, value in shifts.items()} == {"cat": 0.1, "new": 0.3, "old": 0.4}
