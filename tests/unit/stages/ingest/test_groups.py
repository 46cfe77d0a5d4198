"""Groups of images against splits: drawn, given and unlabeled ones."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest import groups
from reflux.components.stages.ingest.splits import assign


def frame_of(**columns: list[str | None]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    frame["path"] = [f"{row}.png" for row in range(len(frame))]
    frame["sha256"] = [hashlib.sha256(path.encode()).hexdigest() for path in frame["path"]]
    return frame.assign(group=groups.groups_of(frame, "patient"))


def test_a_group_has_one_place_and_an_image_without_one_its_own():
    frame = frame_of(patient=["a", "a", "b", "none", "none", "b"])
    ids = groups.ids_for_splits(frame["group"], frame["sha256"])
    assert ids[0] == ids[1] != ids[2] == ids[5]
    own = [int(digest[:16], 16) for digest in frame["sha256"]]
    assert ids[3:5].tolist() == own[3:5]
    assert ids[0] == int(hashlib.sha256(b"a").hexdigest()[:16], 16)


def test_no_drawn_split_parts_a_group_and_new_images_move_none():
    patients = [f"p{row // 5}" for row in range(500)]
    frame = frame_of(patient=patients)
    splits = assign(
        [None] * 500, np.zeros(500, np.int64), groups.ids_for_splits(frame["group"], frame["sha256"]), 0.2, 0.2
    )
    drawn = dict(zip(patients, splits, strict=True))
    assert [drawn[patient] for patient in patients] == splits.tolist()
    assert {name: list(drawn.values()).count(name) for name in ("train", "val", "test")} == {
        "train": 56,
        "val": 21,
        "test": 23,
    }
    more = frame_of(patient=[*(f"new{row}" for row in range(50)), *patients])
    again = assign(
        [None] * 550, np.zeros(550, np.int64), groups.ids_for_splits(more["group"], more["sha256"]), 0.2, 0.2
    )
    assert again[50:].tolist() == splits.tolist()


def test_each_class_of_three_groups_has_one_in_every_split():
    patients = [f"p{row // 4}" for row in range(48)]
    labels = np.arange(48) // 12
    frame = frame_of(patient=patients)
    splits = assign([None] * 48, labels, groups.ids_for_splits(frame["group"], frame["sha256"]), 0.15, 0.15)
    drawn = dict(zip(patients, splits, strict=True))
    assert [drawn[patient] for patient in patients] == splits.tolist()
    assert [set(splits[labels == label]) for label in range(4)] == [{"train", "val", "test"}] * 4


def test_without_a_column_no_image_has_a_group():
    frame = pd.DataFrame({"sha256": ["ab" * 32, "cd" * 32]})
    alone = groups.groups_of(frame, None)
    assert alone.isna().all()
    assert groups.ids_for_splits(alone, frame["sha256"]).tolist() == [0xABABABABABABABAB, 0xCDCDCDCDCDCDCDCD]


def test_given_splits_that_break_a_group_are_refused_by_its_name():
    whole = frame_of(patient=["a", "a", "b", "none", "none"], split=["train", "train", "test", "train", "test"])
    groups.refuse_broken(whole, "data/x", "patient")
    broken = frame_of(patient=["a", "a", "b", "c", "c"], split=["train", "test", "test", "val", "train"])
    with pytest.raises(
        UserError, match="data/x has images of the patient 'a' in test and train, 'c' in train and val: "
    ):
        groups.refuse_broken(broken, "data/x", "patient")


def test_unlabeled_images_of_a_held_out_group_are_left_out_and_listed():
    frame = frame_of(
        patient=["a", "b", "c", "a", "b", "c", "none", "d"],
        split=["train", "val", "test", "unlabeled", "unlabeled", "unlabeled", "unlabeled", "unlabeled"],
    )
    kept, lost = groups.leave_out_unlabeled(frame, "patient")
    assert kept["path"].tolist() == ["0.png", "1.png", "2.png", "3.png", "6.png", "7.png"]
    assert [failure.reason for failure in lost] == [
        "4.png is unlabeled, and its patient 'b' is in val.",
        "5.png is unlabeled, and its patient 'c' is in test.",
    ]
