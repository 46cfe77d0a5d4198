from pathlib import Path

import pandas as pd
import pytest

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.checks import (
    drop_overlaps,
    drop_repeats,
    drop_two_labels,
    refuse_damaged,
    refuse_unlearnable,
)
from reflux.components.stages.ingest.decoding import Failure


def frame_of(*rows: tuple[str, str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "split", "label", "sha256"]).assign(group=None)


def test_of_repeats_in_a_split_one_stays() -> None:
    frame = frame_of(
        ("b.png", "train", 0, "aa"),
        ("a.png", "train", 0, "aa"),
        ("d.png", "test", 0, "aa"),
        ("e.png", "train", 0, "bb"),
    )
    kept, repeats = drop_repeats(frame)
    assert kept["path"].tolist() == ["a.png", "d.png", "e.png"]
    assert repeats == [Failure("b.png", "b.png has the same content as a.png in the same split.", "repeat")]


def test_an_image_under_two_labels_is_set_aside_with_all_its_labeled_copies() -> None:
    frame = frame_of(
        ("a.png", "train", 0, "aa"),
        ("b.png", "test", 1, "aa"),
        ("c.png", "train", 0, "aa"),
        ("d.png", "unlabeled", -1, "aa"),
        ("e.png", "train", 0, "bb"),
        ("f.png", "train", 0, "bb"),
    )
    kept, lost = drop_two_labels(frame, ["cat", "dog"])
    assert kept["path"].tolist() == ["d.png", "e.png", "f.png"]
    assert {failure.kind for failure in lost} == {"labels"}
    assert [failure.reason for failure in lost] == [
        "a.png is labeled cat, and b.png of the same content dog.",
        "b.png is labeled dog, and a.png of the same content cat.",
        "c.png is labeled cat, and b.png of the same content dog.",
    ]


def test_an_image_of_several_splits_stays_where_it_is_tested_on() -> None:
    frame = frame_of(
        *(("a", "train", 0, "1"), ("b", "test", 0, "1"), ("c", "unlabeled", -1, "1"), ("d", "train", 0, "2")),
        *(("e", "val", 0, "2"), ("f", "unlabeled", -1, "3"), ("g", "train", 0, "3"), ("h", "val", 0, "4")),
        *(("i", "test", 0, "1"), ("j", "train", 0, "5"), ("k", "unlabeled", -1, "6")),
    ).astype({"split": "category"})
    kept, lost = drop_overlaps(frame, Path("data"))
    assert kept["path"].tolist() == ["b", "e", "g", "h", "i", "j", "k"]
    assert {failure.kind for failure in lost} == {"overlap"}
    assert [failure.reason for failure in lost] == [
        "a in train has the same content as b in test.",
        "d in train has the same content as e in val.",
        "c in unlabeled has the same content as b in test.",
        "f in unlabeled has the same content as g in train.",
    ]


def test_a_split_that_is_a_copy_of_another_is_refused() -> None:
    frame = frame_of(("a", "train", 0, "1"), ("b", "val", 0, "2"), ("c", "test", 0, "2"), ("d", "unlabeled", -1, "2"))
    with pytest.raises(UserError, match=r"All images of val in data are in another split too \(b, d\): put others"):
        drop_overlaps(frame, Path("data"))


def images_of(counts: dict[int, int], split: str = "train") -> list[tuple[str, str, int, str]]:
    return [(f"{label}-{i}", split, label, f"{label}-{i}") for label, count in counts.items() for i in range(count)]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (images_of({0: 9}), r"has one class \(cat\): a classifier needs at least two; to tell it from all else, put"),
        (
            images_of({-1: 9}, "unlabeled"),
            "has no labeled images that can be used: label at least three of each of two",
        ),
        (
            images_of({0: 3, 1: 1}),
            r"too few usable images in 1 of 2 classes, dog \(1\): each needs at least 3, one each for train and test "
            "and val; add some, merge classes, or leave these out",
        ),
        (images_of({0: 2, 1: 2}), r"in 2 of 2 classes, cat \(2\), dog \(2\): each needs at least 3"),
        (images_of({0: 4, 1: 4}, "val"), "has no training images"),
    ],
)
def test_dataset_that_can_not_be_learned_is_refused(rows: list[tuple[str, str, int, str]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        refuse_unlearnable(frame_of(*rows), ["cat", "dog"], Path("data"), ("test", "val"))


def test_a_class_needs_as_many_images_or_groups_as_splits_are_drawn() -> None:
    frame = frame_of(*images_of({0: 3, 1: 3}))
    refuse_unlearnable(frame, ["cat", "dog"], Path("data"), ("test", "val"))
    with pytest.raises(UserError, match=r"too few groups of images in 1 of 2 classes, cat \(2\)"):
        refuse_unlearnable(
            frame.assign(group=["p1", "p1", None, None, "p1", "p2"]),
            ["cat", "dog"],
            Path("data"),
            ("test", "val"),
        )
    given = frame_of(*images_of({0: 2, 1: 1}), *images_of({0: 1, 1: 1}, "test"))
    refuse_unlearnable(given, ["cat", "dog"], Path("data"), ())
    with pytest.raises(UserError, match=r"classes, dog \(1\): each needs at least 2, one each for train and val;"):
        refuse_unlearnable(given, ["cat", "dog"], Path("data"), ("val",))
    with pytest.raises(UserError, match=r"classes, emu \(0\): each needs at least 1 to train on; add some"):
        refuse_unlearnable(given, ["cat", "dog", "emu"], Path("data"), ())


def test_unlabeled_images_may_be_all_that_there_is_to_learn_from() -> None:
    judges = [*images_of({0: 1, 1: 1}, "val"), *images_of({0: 1, 1: 1}, "test")]
    frame = frame_of(*judges, ("u", "unlabeled", UNLABELED, "u"))
    refuse_unlearnable(frame, ["cat", "dog"], Path("data"), (), labels_needed=False)
    with pytest.raises(UserError, match="no labeled training images to take val from: label images for a split named"):
        refuse_unlearnable(frame, ["cat", "dog"], Path("data"), ("val",), labels_needed=False)
    with pytest.raises(UserError, match="has no training images: add a split named train"):
        refuse_unlearnable(frame, ["cat", "dog"], Path("data"), ())


def test_damaged_images_are_tolerated_up_to_their_share() -> None:
    damaged = [Failure(f"{i}.png", f"{i}.png is empty.", "unreadable") for i in range(3)]
    damaged += [Failure(f"{i}.png", f"{i}.png is labeled cat.", "labels") for i in range(3, 5)]
    refuse_damaged(damaged, 100, 0.05, Path("data"), Path("q"))
    refuse_damaged([], 0, 0.05, Path("data"))
    with pytest.raises(
        UserError,
        match=r"5 of 99 images in data can't be used \(5.05%, and ingest.max_quarantined is 5.00%\): 3 unreadable, 2 "
        r"under two labels; 0.png is empty, 1.png is empty, 2.png is empty and 2 more; fix .*listed in q, or raise",
    ):
        refuse_damaged(damaged, 99, 0.05, Path("data"), Path("q"))
