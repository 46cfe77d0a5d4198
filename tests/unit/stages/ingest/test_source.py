from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source


@pytest.mark.parametrize("name", ["images.zip", "images.xlsx", "images"])
def test_unknown_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"is no dataset: give class folders"):
        open_source(tmp_path / name)


def test_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
