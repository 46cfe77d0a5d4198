import pandas as pd

from components.validate.tables import class_counts, class_shifts, images, labeled, shares_of_classes


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
