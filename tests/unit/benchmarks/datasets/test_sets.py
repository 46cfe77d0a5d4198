from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.datasets import sets
from benchmarks.datasets.sets import SETS, Place, build, counts, digest


def test_the_shipped_set_is_built_once_and_counted(tmp_path: Path):
    folder = build("fashion-500", Place(tmp_path, tmp_path), tmp_path / "sets")
    assert counts(folder) == {"labeled": 1000, "unlabeled": 9000, "test": 5000}
    before = digest(folder)
    (folder / "val.parquet").rename(folder / "dev.parquet")
    assert digest(folder) != before, "names count"
    assert digest(build("fashion-500", Place(tmp_path, tmp_path), tmp_path / "sets")) != before, "what is there stays"


def test_an_interrupted_build_leaves_no_set(tmp_path: Path, monkeypatch):
    def stop(_: Place, out: Path) -> None:
        (out / "half.png").touch()
        raise KeyboardInterrupt

    monkeypatch.setitem(sets.SETS, "digits", replace(SETS["digits"], write=stop))
    with pytest.raises(KeyboardInterrupt):
        build("digits", Place(tmp_path, tmp_path), tmp_path / "sets")
    assert not (tmp_path / "sets/digits").exists()


def test_the_sets_differ_as_the_issue_asks():
    assert len(SETS) >= 8
    assert sum(images.color for images in SETS.values()) >= 3
