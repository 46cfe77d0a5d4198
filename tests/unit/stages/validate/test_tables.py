import numpy as np
import pandas as pd

from reflux.components.stages.validate.tables import (
    class_counts,
    class_shifts,
    groups,
    images,
    labeled,
    look_alikes,
    recalls,
    shares_of_classes,
)


def manifest(*rows: tuple[str, str, int | None, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["path", "split", "label", "sha256", "phash"]).assign(pixel_std=1.0)
    return table.astype({"label": "Int64"})


ZERO, ONE_BIT, FAR = "0" * 64, "1" + "0" * 63, "f" * 64


def test_doubles_of_other_splits_are_named() -> None:
    rows = [("a", "train", 0, "s1", ZERO), ("b", "test", 0, "s1", ZERO), ("c", "train", 0, "s2", ZERO)]
    table = images(manifest(*rows)).set_index("path")
    assert table["same_image_in"].dropna().to_dict() == {"a": "b in test", "b": "a in train"}


def test_look_alikes_of_test_images_are_named_where_they_are_trained_on() -> None:
    table = look_alikes(
        manifest(
            ("a", "test", 0, "s1", ZERO),
            ("b", "test", 0, "s2", FAR),
            ("c", "test", 0, "s3", ONE_BIT),
            ("d", "val", 0, "s4", FAR),
            ("e", "train", 0, "s5", ONE_BIT),
            ("f", "unlabeled", None, "s6", ZERO),
        ),
        near_duplicate_bits=1,
    ).set_index("path")
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["similar_image_in"].dropna().to_dict() == {
        "a": "f in unlabeled (0 bits apart)",
        "c": "e in train (0 bits apart)",
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


def test_an_empty_training_split_lacks_no_class() -> None:
    rows = labeled(manifest(("a", "val", 0, "s1", ZERO), ("b", "unlabeled", None, "s2", ZERO)), ["cat"])
    assert class_counts(rows, ["cat"])["class_and_split"].tolist() == ["cat in val", "cat in test"]


def test_counts_include_classes_that_a_split_lacks() -> None:
    rows = labeled(manifest(("a", "train", 0, "s1", ZERO), ("b", "train", 0, "s2", ZERO)), ["cat", "dog"])
    counts = class_counts(rows, ["cat", "dog"]).set_index("class_and_split")["images"]
    assert counts.to_dict() == {
        **{"cat in train": 2, "dog in train": 0, "cat in val": 0, "dog in val": 0},
        **{"cat in test": 0, "dog in test": 0},
    }
    assert shares_of_classes(rows, ["cat", "dog"]) == {"cat": 1.0, "dog": 0.0}


def test_recalls_are_known_as_well_as_few_images_tell() -> None:
    rows = [("train", "cat", 5), ("val", "cat", 1), ("test", "cat", 1200), ("val", "dog", 13), ("test", "dog", 0)]
    table = recalls(pd.DataFrame(rows, columns=["split", "class_name", "images"]))
    names = ["1 validation image of cat", "13 validation images of dog", "1,200 test images of cat"]
    assert table["images_of"].tolist() == names
    # Wilson's interval at p is (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n).
    z = 1.959964
    p, n = np.array([0, 6 / 13, 0.5]), np.array([1, 13, 1200])
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    np.testing.assert_allclose(table["points"], 100 * half, rtol=1e-6)


def test_shifts_include_new_and_vanished_classes() -> None:
    shifts = class_shifts({"cat": 0.7, "new": 0.3}, {"cat": 0.6, "old": 0.4}).set_index("class_name")["shift"]
    assert {name: round(value, 6) for name, value in shifts.items()} == {"cat": 0.1, "new": 0.3, "old": 0.4}


def test_groups_in_several_splits_are_named_and_unlabeled_images_count_as_training() -> None:
    rows = [
        ("a", "train"),
        ("a", "unlabeled"),
        ("b", "unlabeled"),
        ("b", "test"),
        ("b", "test"),
        ("c", "val"),
        (None, "val"),
    ]
    table = groups(pd.DataFrame(rows, columns=["group", "split"]))
    assert table.to_dict("list") == {"group": ["a", "b", "c"], "splits": [None, "test and train", None]}
    assert groups(pd.DataFrame({"group": [None], "split": ["train"]})) is None
