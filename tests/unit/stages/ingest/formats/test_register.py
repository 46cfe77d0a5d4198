from pathlib import Path

import pytest

from reflux.components.stages.ingest.formats.register import FORMATS, Format, dataset_format
from reflux.components.stages.ingest.items import Item, Source
from reflux.components.stages.ingest.source import open_source
from tests.unit.stages.ingest.sources import tree


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="Two formats are named manifest"):
        dataset_format("manifest", "a manifest", Path.is_file)(lambda path, kept: Source([], 0, [], []))


def test_the_format_registered_last_is_asked_first(tmp_path, monkeypatch):
    folder = tree(tmp_path, "a/1.png", "b/2.png")
    mine = Source(["x"], 1, [Item("1", None, 0, b"")], [])
    monkeypatch.setitem(FORMATS, "mine", Format("mine", Path.is_dir, lambda path, kept: mine))
    assert open_source(folder).classes == ["x"]
    monkeypatch.delitem(FORMATS, "mine")
    assert open_source(folder).classes == ["a", "b"]
    assert list(FORMATS) == ["class-folders", "manifest", "hugging-face"]
