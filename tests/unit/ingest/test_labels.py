from pathlib import Path
from typing import Any

import pytest

from components.core.errors import UserError
from components.ingest.source import open_source
from tests.unit.ingest.formats import NAMES, hugging_face


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0, 3, 1, -1, *[7] * 9], NAMES)
    with pytest.raises(
        UserError,
        match=r"out of range in 11 rows: train.parquet#1 has 3, train.parquet#3 has -1, .*and 6 more; .* 0 to 2",
    ):
        open_source(tmp_path)


@pytest.mark.parametrize("labels", [[[0], [1, 2]], [0.5, 1.0], ["bird", "cat"]])
def test_what_is_no_label_is_refused(tmp_path: Path, labels: list[Any]) -> None:
    hugging_face(tmp_path / "train.parquet", labels, NAMES)
    with pytest.raises(UserError, match=r"labels out of range in [12] rows"):
        open_source(tmp_path)


def test_different_class_names_are_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [0], NAMES)
    hugging_face(tmp_path / "test.parquet", [0], NAMES[::-1])
    with pytest.raises(UserError, match="have different class names"):
        open_source(tmp_path)
