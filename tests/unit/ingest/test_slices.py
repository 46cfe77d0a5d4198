from pathlib import Path

import pytest

from components.core.errors import UserError
from components.ingest.source import open_source
from tests.unit.ingest.formats import NAMES, hugging_face


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            ["site", "camera"],
            "train.parquet has no column 'camera', which ingest.slices names .its columns: image, label",
        ),
        (["image"], "train.parquet has struct.* in its column 'image'"),
        (["tags"], "train.parquet has list.* in its column 'tags'"),
        (["number"], "has 101 values in the column 'number', .*more than 100 slices"),
    ],
)
def test_a_column_that_can_t_slice_is_refused(tmp_path: Path, wanted: list[str], sentence: str) -> None:
    labels = [i % 3 for i in range(101)]
    more = {"site": labels, "tags": [[i] for i in labels], "number": list(range(101))}
    hugging_face(tmp_path / "train.parquet", labels, NAMES, **more)
    with pytest.raises(UserError, match=sentence) as caught:
        open_source(tmp_path, wanted)
    assert "\n" not in str(caught.value)
