"""Datasets that were made to harm: nothing of them hangs, or leads out of their folder."""

import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.decoding import decode_all
from reflux.components.stages.ingest.source import open_source
from tests.datasets import noise, save
from tests.unit.stages.ingest.sources import csv, tree

pytestmark = pytest.mark.timeout(60)


def test_a_link_to_a_secret_is_refused_in_each_format(tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    folder = tree(tmp_path / "pets", "cat/1.png", "dog/2.png")
    (folder / "dog" / "key.png").symlink_to("../../id_rsa")
    sentence = r"its own: .*key.png is a link to ../../id_rsa; take it out"
    with pytest.raises(UserError, match=sentence):
        open_source(folder)
    listed = csv(folder, "path,label\ncat/1.png,cat\ndog/key.png,dog\n")
    with pytest.raises(UserError, match=sentence):
        open_source(folder)
    with pytest.raises(UserError, match=r"labels.csv names dog/key.png, which a link leads out of"):
        open_source(listed)
    images = pa.array([{"bytes": None, "path": "dog/key.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": images, "label": ["dog"]}), folder / "train.parquet")
    with pytest.raises(UserError, match=r"train.parquet names dog/key.png, which a link leads out of"):
        list(open_source(folder / "train.parquet").items)


def test_a_folder_that_is_a_link_out_is_refused_in_each_format(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "1.png")
    folder = tree(tmp_path / "pets", "cat/1.png")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"dog is a link to .*elsewhere"):
        open_source(folder)
    with pytest.raises(UserError, match=r"names dog/1.png, which a link leads out of"):
        open_source(csv(folder, "path,label\ncat/1.png,cat\ndog/1.png,dog\n"))


@pytest.mark.parametrize("name", ["dog/p.png", "labels.csv", "train.parquet", ".hidden"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tree(tmp_path / "pets", "cat/1.png", "dog/2.png") / name)
    with pytest.raises(UserError, match=f"{name} is a named pipe; take it out"):
        open_source(tmp_path / "pets")


def test_a_named_pipe_and_an_endless_file_of_a_manifest_are_set_aside(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(30 * 2**30)
    save(noise(1), tmp_path / "1.png")
    source = open_source(csv(tmp_path, "path,label\n1.png,a\npipe.png,b\nsparse.png,b\n"))
    limits = {"min_size_px": 1, "max_megapixels": 50}
    frame, failures = decode_all(source.items, 3, tmp_path / "out", 3, 8, **limits, encoded=False, processes=1)
    assert frame["path"].tolist() == ["1.png"]
    assert [failure.reason for failure in failures] == [
        "pipe.png is a named pipe and no file.",
        "sparse.png has 32,212 MB, more than the 467 that an image of ingest.max_megapixels (50) can have.",
    ]


@pytest.mark.parametrize("name", [b"fl\xe9t/1.png", b"dog/caf\xe9.png", b"dog/.\xff"])
def test_a_name_that_is_not_utf_8_is_refused_with_a_way_to_rename_it(tmp_path: Path, name: bytes) -> None:
    folder = tree(tmp_path / "pet's", "cat/1.png", "dog/1.png")
    strange = Path(folder, os.fsdecode(name))
    strange.parent.mkdir(exist_ok=True)
    strange.write_bytes(b"x")
    with pytest.raises(UserError) as error:
        open_source(folder)
    assert str(error.value).isascii()
    assert "has a name that is not UTF-8: rename it" in str(error.value)
    new = tmp_path / "renamed"
    subprocess.run(
        ["bash", "-c", f"{str(error.value).partition('bash with ')[2].partition(' and a ')[0]} {new}"], check=True
    )
    assert new.exists()
    assert open_source(folder).classes == ["cat", "dog"]


def test_two_spellings_of_one_class_are_refused_in_folders(tmp_path: Path) -> None:
    folder = tree(tmp_path / "pets", "caf\u00e9/1.png", "cafe\u0301/2.png")
    if len(list(folder.iterdir())) == 1:
        pytest.skip("this file system knows one spelling")
    with pytest.raises(
        UserError, match=r"pets has two classes that look alike, 'cafe\\u0301' and 'caf\\xe9', two spel"
    ):
        open_source(folder)


def test_a_path_too_long_for_the_disk_is_set_aside(tmp_path: Path) -> None:
    save(noise(1), tmp_path / "1.png")
    source = open_source(csv(tmp_path, f"path,label\n1.png,a\n{'x' * 300}.png,b\n"))
    limits = {"min_size_px": 1, "max_megapixels": 50}
    frame, (failure,) = decode_all(source.items, 2, tmp_path / "out", 3, 8, **limits, encoded=False, processes=1)
    assert frame["path"].tolist() == ["1.png"]
    assert failure.reason.endswith("x.png can't be read (File name too long).")


def test_links_that_lead_back_up_are_no_classes(tmp_path: Path) -> None:
    folder = tree(tmp_path / "pets", "cat/1.png", "dog/2.png")
    (folder / "all").symlink_to(".")
    (folder / "cat" / "up").symlink_to("..")
    (folder / "cat" / "train").symlink_to("../../pets")
    source = open_source(folder)
    assert source.classes == ["cat", "dog"]
    assert [item.path for item in source.items] == ["cat/1.png", "dog/2.png"]
