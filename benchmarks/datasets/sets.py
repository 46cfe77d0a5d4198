"""The image sets of the benchmark, each with what is in it and how it is built."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.datasets.sources import cards, clipart, digits, emoji, few, gray, icons, letters, stamps
from benchmarks.datasets.sources.packages import debian, npm
from benchmarks.harness.results import ROOT
from reflux.components.core.data.shards import UNLABELED
from reflux.components.stages.ingest.source import open_source


@dataclass(frozen=True)
class Place:
    """Where sources find what they are made of.

    Attributes:
        data: the folder of ``fashion-mnist/`` and ``mnist/``, the full sets; see benchmarks/README.md.
        cache: a folder for fetched packages.
    """

    data: Path
    cache: Path


@dataclass(frozen=True)
class ImageSet:
    """A set of images as a user would have it.

    Attributes:
        kind: what the pictures show, in words.
        pixels: the shortest and the longest side of a picture.
        color: whether they have color.
        license: of the pictures.
        write: writes it into an empty folder.
    """

    kind: str
    pixels: tuple[int, int]
    color: bool
    license: str
    write: Callable[[Place, Path], None]


def _gray(full: str, labeled: int | None, unlabeled: int = 0, per_class: bool = False) -> Callable[[Place, Path], None]:
    return lambda place, out: gray.part(place.data / full, out, labeled, unlabeled, per_class)


def _debian(packages: dict[str, str], write: Callable[[Path, Path], None]) -> Callable[[Place, Path], None]:
    return lambda place, out: write(debian(packages, place.cache), out)


def _shipped(_: Place, out: Path) -> None:
    shutil.copytree(ROOT / "data/fashion-mnist", out, dirs_exist_ok=True)


def _few_labels(write: Callable[[Place, Path], None], per_class: int) -> Callable[[Place, Path], None]:
    def write_few(place: Place, out: Path) -> None:
        write(place, out)
        few.keep_labels(out, per_class)

    return write_few


def _emoji(place: Place, out: Path) -> None:
    google, microsoft, twitter = (npm(*each, place.cache) for each in (emoji.GOOGLE, emoji.MICROSOFT, emoji.TWITTER))
    emoji.build(google, microsoft, twitter, out)


_CLOTHES = ("photographs of clothes", (28, 28), False, "MIT")
_HANDWRITING = ("handwritten digits", (28, 28), False, "CC BY-SA 3.0")

_LETTERS = ("letters, test: other fonts", (28, 28), False, "of the fonts, free")
_EMOJI = ("emoji, test: another maker", (64, 264), True, "Apache 2.0, MIT, CC BY 4.0")

SETS = {
    "fashion-500": ImageSet(*_CLOTHES, _shipped),
    "fashion-2000": ImageSet(*_CLOTHES, _gray("fashion-mnist", 2_000, 18_000)),
    "fashion-20000": ImageSet(*_CLOTHES, _gray("fashion-mnist", 20_000)),
    "fashion-mixed": ImageSet(*_CLOTHES, _gray("fashion-mnist", 20_000, 40_000)),
    "fashion-60000": ImageSet(*_CLOTHES, _gray("fashion-mnist", None)),
    "mnist-100": ImageSet(*_HANDWRITING, _gray("mnist", 100, 59_900, per_class=True)),
    "mnist-1000": ImageSet(*_HANDWRITING, _gray("mnist", 1_000)),
    "digits": ImageSet("handwritten digits", (8, 8), False, "CC BY 4.0", lambda _, out: digits.build(out)),
    "letters": ImageSet(*_LETTERS, _debian(letters.PACKAGES, letters.build)),
    "letters-200": ImageSet(*_LETTERS, _few_labels(_debian(letters.PACKAGES, letters.build), 20)),
    "stamps": ImageSet("cut-out photographs", (20, 2_348), True, "GPL-2", _debian(stamps.PACKAGE, stamps.build)),
    "emoji": ImageSet(*_EMOJI, _emoji),
    "emoji-360": ImageSet(*_EMOJI, _few_labels(_emoji, 40)),
    "cards": ImageSet(
        "playing cards, test: other decks", (26, 400), True, "GPL-2", _debian(cards.PACKAGE, cards.cards)
    ),
    "mahjong": ImageSet(
        "mahjong tiles, test: other decks", (24, 130), True, "GPL-2", _debian(cards.PACKAGE, cards.tiles)
    ),
    "icons": ImageSet("desktop icons", (22, 48), True, "LGPL-3", _debian(icons.PACKAGE, icons.build)),
    "clipart": ImageSet("clip art", (32, 24_967), True, "public domain", _debian(clipart.PACKAGE, clipart.build)),
}


def build(name: str, place: Place, folder: Path) -> Path:
    """Build a set in ``<folder>/<name>``, unless it is there: whole or not at all, the same files each time.

    Raises:
        SystemExit: what it is made of is not to be had.
    """
    target, partial = folder / name, folder / f".{name}-partial"
    if not target.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        SETS[name].write(place, partial)
        partial.rename(target)
    return target


def counts(folder: Path) -> dict[str, int]:
    """How many images of a set are labeled, unlabeled, and of its own test split; 0 where ``ingest`` draws one."""
    items = list(open_source(folder).items)
    test = sum(item.split == "test" for item in items)
    unlabeled = sum(item.label == UNLABELED for item in items)
    return {"labeled": len(items) - test - unlabeled, "unlabeled": unlabeled, "test": test}


def digest(folder: Path) -> str:
    """A digest of a folder's files and their names."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{file.relative_to(folder)}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]
