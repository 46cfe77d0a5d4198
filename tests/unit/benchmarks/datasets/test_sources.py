"""Each source writes a folder that ``ingest`` reads, from packages and full sets in miniature."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from benchmarks.datasets.sources import cards, clipart, digits, emoji, few, gray, icons, letters, stamps
from reflux.components.stages.ingest.items import Source
from reflux.components.stages.ingest.source import open_source


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (len(path.name), 80, 90)).save(path)


def counts(source: Source) -> dict[tuple[str | None, str], int]:
    """Images by split and class."""
    names = dict(enumerate(source.classes))
    return dict(Counter((item.split, names.get(item.label, "")) for item in source.items))


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Forty training and ten test images of two classes, three to one."""
    folder = tmp_path / "full"
    folder.mkdir()
    for split, number in (("train", 40), ("test", 10)):
        rows = []
        for index in range(number):
            file = io.BytesIO()
            Image.fromarray(np.full((28, 28), index, np.uint8)).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": f"{split}-{index}.png"})
        labels = pa.array([int(index % 4 == 0) for index in range(number)])
        pq.write_table(pa.table({"image": rows, "label": labels}), folder / f"{split}.parquet")
    return folder


def test_a_part_keeps_some_labels_and_all_of_the_test(full: Path, tmp_path: Path):
    parts = [tmp_path / name for name in ("one", "again")]
    for part in parts:
        part.mkdir()
        gray.part(full, part, labeled=8, unlabeled=12, per_class=True)
    assert counts(open_source(parts[0])) == {
        ("train", "0"): 4,
        ("train", "1"): 4,
        ("unlabeled", ""): 12,
        ("test", "0"): 7,
        ("test", "1"): 3,
    }
    tables = {name: pq.read_table(parts[0] / f"{name}.parquet") for name in ("train", "unlabeled")}
    paths = [row["path"] for table in tables.values() for row in table["image"].to_pylist()]
    assert len(set(paths)) == 20, "an image is labeled or unlabeled, not both"
    for file in parts[0].iterdir():
        assert file.read_bytes() == (parts[1] / file.name).read_bytes()


def test_all_labels_stay_when_none_are_taken_away(full: Path, tmp_path: Path):
    out = tmp_path / "all"
    out.mkdir()
    gray.part(full, out, labeled=None)
    assert counts(open_source(out))["train", "0"] == 30


def test_a_missing_full_set_is_named(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"mnist/train\.parquet does not exist: give --data"):
        gray.part(tmp_path / "mnist", tmp_path, labeled=1)


@pytest.mark.slow
def test_the_digits_are_class_folders(tmp_path: Path):
    digits.build(tmp_path)
    source = open_source(tmp_path)
    assert (len(source.classes), source.count) == (10, 1797)
    assert np.asarray(Image.open(tmp_path / "0/0000.png")).max() == 239  # 15 of 16 levels


def test_letters_come_from_fonts_that_have_all_ten(tmp_path: Path):
    if not features.check("freetype2"):
        pytest.skip("this Pillow draws no fonts")
    from matplotlib import get_data_path

    package, out = tmp_path / "package", tmp_path / "out"
    package.mkdir()
    fonts = Path(get_data_path()) / "fonts/ttf"
    for name in ("DejaVuSans.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf", "STIXSizOneSymReg.ttf"):
        (package / name).write_bytes((fonts / name).read_bytes())
    (package / "broken.ttf").write_bytes(b"no font")
    letters.build(package, out)
    found = {file.name for file in out.rglob("*.png")}
    assert found == {"DejaVuSans.png", "DejaVuSerif.png", "STIXGeneral.png"}
    sides = {file.parts[-3] for file in out.rglob("DejaVu*.png")}
    assert len(sides) == 1, "a family is on one side"
    drawn = np.asarray(Image.open(next(out.rglob("I/DejaVuSans.png"))))
    assert drawn.shape == (28, 28)
    assert drawn[:, 13].mean() < 100 < drawn[:, 4].mean(), "a black stroke in the middle of white"


def test_stamps_are_photographs(tmp_path: Path):
    root = tmp_path / "package/usr/share/tuxpaint/stamps"
    for subject in stamps.CLASSES:
        picture(root / subject / "birds/one.png")
    for name in ("birds/cartoon/two.png", "birds/one_mirror.png"):
        picture(root / "animals" / name)
    stamps.build(tmp_path / "package", tmp_path / "out")
    assert counts(open_source(tmp_path / "out")) == {(None, subject): 1 for subject in stamps.CLASSES}


def test_one_maker_of_emoji_is_the_test(tmp_path: Path):
    google, microsoft, twitter = (tmp_path / name for name in ("google", "microsoft", "twitter"))
    every = []
    for number, group in enumerate(("Food & Drink", "Flags", "Component")):
        picture(google / f"img/google/64/1f{number}.png")
        picture(twitter / f"img/twitter/64/1f{number}.png")
        every.append({"category": group, "image": f"1f{number}.png", "unified": f"1F{number}"})
    picture(microsoft / "assets/1f0.webp")
    (google / "emoji.json").write_text(json.dumps(every))
    emoji.build(google, microsoft, twitter, tmp_path / "out")
    assert counts(open_source(tmp_path / "out")) == {
        ("train", "food-drink"): 2,
        ("train", "flags"): 1,
        ("test", "food-drink"): 1,
        ("test", "flags"): 1,
    }


def test_a_set_of_few_labels_has_as_many_of_each_class(tmp_path: Path):
    for label, number in (("flags", 5), ("food", 3), ("places", 1)):
        for i in range(number):
            picture(tmp_path / f"train/{label}/{i}.png")
    picture(tmp_path / "test/flags/0.png")
    few.keep_labels(tmp_path, 2)
    assert counts(open_source(tmp_path)) == {
        ("train", "flags"): 2,
        ("train", "food"): 2,
        ("train", "places"): 1,
        ("test", "flags"): 1,
        ("unlabeled", ""): 4,
    }


@pytest.fixture
def decks(tmp_path: Path) -> Path:
    """Decks of two kinds; a joker and a back belong to no class."""
    root = tmp_path / "package/usr/share/games/pysolfc"
    for deck, kind, names in (
        *((f"{name}{size}", "1", ("01c", "13h", "14c", "back01")) for name in "abcdefgh" for size in ("", "-small")),
        *((f"{name}-tiles", "4", ("01a", "02b", "back01")) for name in "abcdefgh"),
    ):
        for name in names:
            picture(root / f"cardset-{deck}/{name}.gif")
        (root / f"cardset-{deck}/config.txt").write_text(f"PySolFC solitaire cardset;5;.gif;{kind};52;7\n{deck}\n")
    return tmp_path / "package"


def test_a_deck_of_cards_is_on_one_side_of_the_split(decks: Path, tmp_path: Path):
    cards.cards(decks, tmp_path / "out")
    source = open_source(tmp_path / "out")
    assert source.classes == ["ace", "king"]
    assert source.count == 32
    by_maker = {(Path(item.path).parts[1][0], item.split) for item in source.items}
    assert len(by_maker) == 8, "a small deck is on the side of the large one"
    assert {split for _, split in by_maker} == {"train", "test"}


def test_tiles_are_class_folders(decks: Path, tmp_path: Path):
    cards.tiles(decks, tmp_path / "out")
    source = open_source(tmp_path / "out")
    assert (source.classes, source.count) == (["01a", "02b"], 16)


def test_icons_are_by_context(tmp_path: Path):
    for context in (*icons.CLASSES, "animations"):
        picture(tmp_path / f"package/usr/share/icons/oxygen/base/48x48/{context}/one.png")
    icons.build(tmp_path / "package", tmp_path / "out")
    assert open_source(tmp_path / "out").classes == sorted(icons.CLASSES)


def test_clip_art_that_nobody_filed_is_unlabeled(tmp_path: Path):
    art = tmp_path / "package/usr/share/openclipart/png"
    for subject in clipart.CLASSES:
        picture(art / subject / "deeper/one.png")
    picture(art / "unsorted/two.png")
    (art / "food/link.png").symlink_to(art / "unsorted/two.png")
    clipart.build(tmp_path / "package", tmp_path / "out")
    expected = {(None, subject): 1 for subject in clipart.CLASSES}
    assert counts(open_source(tmp_path / "out")) == {**expected, ("unlabeled", ""): 1}
