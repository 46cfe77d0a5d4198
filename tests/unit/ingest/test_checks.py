from pathlib import Path

import pandas as pd
import pytest

from components.core.errors import UserError
from components.ingest.checks import drop_repeats, refuse_unlearnable, refuse_unreadable
from components.ingest.decoding import Failure


def frame_of(*rows: tuple[str, str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "split", "label", "sha256"])


def test_repeats_are_left_out_only_where_nothing_is_in_doubt() -> None:
    frame = frame_of(
        ("b.png", "train", 0, "aa"),
        ("a.png", "train", 0, "aa"),
        ("c.png", "train", 1, "aa"),
        ("d.png", "test", 0, "aa"),
        ("e.png", "train", 0, "bb"),
    )
    kept, repeats = drop_repeats(frame)
    assert kept["path"].tolist() == ["a.png", "c.png", "d.png", "e.png"]
    assert [r.reason for r in repeats] == ["b.png has the same content as a.png in the same split."]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("a", "train", 0, "1"), ("b", "train", 0, "2")], r"has one class \(cat\)"),
        ([("a", "unlabeled", -1, "1")], "has no labeled images"),
        (
            [("a", "train", 0, "1"), ("b", "train", 0, "2"), ("c.png", "train", 1, "3")],
            r"has one image of dog \(c.png\)",
        ),
        ([("a", "val", i % 2, str(i)) for i in range(4)], "has no training images"),
    ],
)
def test_dataset_that_can_not_be_learned_is_refused(rows: list[tuple[str, str, int, str]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        refuse_unlearnable(frame_of(*rows), ["cat", "dog"], Path("data"))


def test_unreadable_images_are_tolerated_up_to_their_share() -> None:
    failures = [Failure(f"{i}.png", f"{i}.png is empty.") for i in range(5)]
    refuse_unreadable(failures, 100, 0.05, Path("data"), Path("q"))
    with pytest.raises(
        UserError,
        match=r"5 of 99 images in data can't be used \(5.05%, and ingest.max_unreadable is 5.00%\): 0.png is empty, "
        r"1.png is empty, 2.png is empty and 2 more; .*listed in q",
    ):
        refuse_unreadable(failures, 99, 0.05, Path("data"), Path("q"))
