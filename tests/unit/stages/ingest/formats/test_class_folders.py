from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source
from tests.unit.stages.ingest.sources import rows_of, tree


def test_classes_without_splits(tmp_path: Path) -> None:
    source = open_source(tree(tmp_path, "dog/2.png", "cat/1.JPG", "cat/deep/er/3.webp", "unlabeled/u.bmp"))
    assert source.classes == ["cat", "dog"]
    assert source.count == 4
    assert rows_of(source) == [
        ("cat/1.JPG", None, "cat"),
        ("cat/deep/er/3.webp", None, "cat"),
        ("dog/2.png", None, "dog"),
        ("unlabeled/u.bmp", "unlabeled", None),
    ]


def test_classes_in_splits(tmp_path: Path) -> None:
    files = ("train/a/1.png", "validation/b/2.png", "test/a/3.png", "train/unlabeled/4.png", "Unlabeled/any/5.png")
    source = open_source(tree(tmp_path, *files))
    assert source.classes == ["a", "b"]
    assert sorted(rows_of(source)) == [
        ("Unlabeled/any/5.png", "unlabeled", None),
        ("test/a/3.png", "test", "a"),
        ("train/a/1.png", "train", "a"),
        ("train/unlabeled/4.png", "unlabeled", None),
        ("validation/b/2.png", "val", "b"),
    ]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = open_source(tree(tmp_path, "train/1.png", "bus/2.png", "car/3.png"))
    assert source.classes == ["bus", "car", "train"]
    assert {item.split for item in source.items} == {None}


def test_other_pictures_are_kept_for_the_quarantine_and_other_files_are_named(tmp_path: Path) -> None:
    files = ("a/1.png", "a/2.jxl", "b/3.heic", "a/notes.txt", "b/.hidden.png", ".cache/c/4.png", "README.md")
    source = open_source(tree(tmp_path, *files))
    assert [item.path for item in source.items] == ["a/1.png", "a/2.jxl", "b/3.heic"]
    assert source.ignored == ["a/notes.txt"]


def test_links_to_files_are_followed_because_dvc_checks_out_links(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "a/1.png")
    kept = tree(tmp_path, f"cache/files/md5/0f/{'ab' * 15}") / "cache/files/md5/0f" / ("ab" * 15)
    (root / "b").mkdir()
    (root / "b" / "2.png").symlink_to(kept)
    (root / "b" / "loop").symlink_to(root)
    assert [item.path for item in open_source(root).items] == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((), "holds no images: give class folders"),
        (("a/notes.txt", "b/more.txt"), "holds no images"),
        (("1.png", "2.png"), r"holds images outside of class folders \(1.png, 2.png\)"),
        (("a/1.png", "b/1.png", "3.png"), r"holds images outside of class folders \(3.png\)"),
        (("train/1.png", "test/2.png"), "test holds images outside of class folders"),
        (("train/a/1.png", "train/2.png"), "train holds images outside of class folders"),
        (("train/a/1.png", "extra/2.png", "more/b/3.png"), "next to them extra/, more/"),
        (
            ("pets/train/cat/1.png", "pets/test/dog/2.png", "cars/a/3.png"),
            r"folders of splits inside of pets/ \(test, t",
        ),
    ],
)
def test_what_is_no_tree_of_classes_is_refused(tmp_path: Path, files: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(tree(tmp_path, *files))


def test_class_folders_have_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"ingest.slices names columns .camera., and .* is a folder of images"):
        open_source(tmp_path, ["camera"])


@pytest.mark.parametrize(
    ("files", "doubt"),
    [
        (
            ("pets/cat/1.png", "pets/dog/2.png", "cars/bmw/3.png", "cars/vw/4.png"),
            "are cars, pets, which hold no images",
        ),
        (
            ("train/pets/cat/1.png", "train/pets/dog/2.png", "train/cars/bmw/3.png", "train/cars/vw/4.png"),
            "bmw, cat, dog",
        ),
        (("sick/2024/1.png", "sick/2025/2.png", "well/2024/3.png", "well/2025/4.png"), None),
        (("pets/cat/1.png", "pets/dog/2.png", "pets/3.png", "cars/bmw/4.png", "cars/vw/5.png"), None),
        (("cat/1.png", "dog/2.png"), None),
    ],
)
def test_a_folder_that_may_be_one_level_too_high_is_doubted(tmp_path: Path, files: tuple[str, ...], doubt: str | None):
    doubts = open_source(tree(tmp_path, *files)).doubts
    assert len(doubts) == bool(doubt)
    assert not doubt or doubt in doubts[0]
