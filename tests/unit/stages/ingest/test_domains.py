"""The source domain has the dataset's classes, in the dataset's order, and shares no image that judges."""

from pathlib import Path

import numpy as np
import pytest

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.domains import in_order_of, refuse_shared_images
from reflux.components.stages.ingest.items import Item, Source
from tests.workspaces import write_shard


def source(*classes: str) -> Source:
    items = [Item(name, None, label, b"") for label, name in enumerate(classes)]
    return Source(list(classes), len(items) + 1, [*items, Item("none", "unlabeled", UNLABELED, b"")], [])


def test_labels_follow_the_names_of_the_classes():
    same = in_order_of(["a", "b", "c"], source("c", "a", "b"), Path("elsewhere"))
    assert same.classes == ["a", "b", "c"]
    assert {item.path: item.label for item in same.items} == {"a": 0, "b": 1, "c": 2, "none": UNLABELED}


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (("a",), "ingest.source_domain = elsewhere lacks b: a source domain has the dataset's classes, by name"),
        (("a", "b", "d"), "elsewhere has d, which the dataset has not: a source domain has"),
        (("a", "d"), "elsewhere lacks b and has d, which the dataset has not"),
    ],
)
def test_other_classes_are_refused(classes: tuple[str, ...], sentence: str):
    with pytest.raises(UserError, match=sentence):
        in_order_of(["a", "b"], source(*classes), Path("elsewhere"))


def test_images_that_judge_are_no_teachers(tmp_path: Path):
    for seed, split in enumerate(("other/train", "other/val", "dataset/val", "dataset/test")):
        write_shard(tmp_path / split, 10, seed)
    folders, both = (tmp_path / "other", tmp_path / "dataset"), ("train", "val")
    refuse_shared_images(*folders, "ingest.source_domain = elsewhere", both)
    ids = np.load(tmp_path / "dataset/test/ids.npy")
    ids[0] = np.load(tmp_path / "other/val/ids.npy")[0]
    np.save(tmp_path / "dataset/test/ids.npy", ids)
    refuse_shared_images(*folders, "ingest.source_domain = elsewhere", ["train"])
    with pytest.raises(UserError, match=r"1 training and validation images of pretrain.source = x are in .* test"):
        refuse_shared_images(*folders, "pretrain.source = x", both)
    ids[1] = np.load(tmp_path / "other/train/ids.npy")[0]
    np.save(tmp_path / "dataset/test/ids.npy", ids)
    with pytest.raises(UserError, match=r"1 training images of ingest.source_domain = elsewhere are in .* test"):
        refuse_shared_images(*folders, "ingest.source_domain = elsewhere", ["train"])
