from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source
from tests.unit.stages.ingest.sources import NAMES, hugging_face, tree


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


def test_a_group_may_have_any_number_of_values_and_its_messages_name_its_param(tmp_path: Path) -> None:
    labels = [i % 3 for i in range(101)]
    hugging_face(tmp_path / "train.parquet", labels, NAMES, patient=list(range(101)), site=labels)
    source = open_source(tmp_path, ["site"], "patient")
    assert [item.slices for item in source.items][100] == ("1", "100")
    assert [item.slices for item in open_source(tmp_path, ["site"], "site").items][100] == ("1",)
    with pytest.raises(UserError, match=r"'person', which ingest\.group names .*fix the name in ingest\.group"):
        open_source(tmp_path, ["site"], "person")


def test_class_folders_have_no_column_of_groups(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ingest\.group names columns \(patient\).*or set ingest\.group to null"):
        open_source(tree(tmp_path, "a/1.png", "b/2.png"), group="patient")
