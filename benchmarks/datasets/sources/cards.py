"""Playing cards and mahjong tiles of many decks, historical ones too: Debian's ``pysolfc-cardsets`` (GPL-2 and others).

Color, GIF and PNG of 24 to 400 pixels, not square. Decks are whole in training or whole in test, drawn by a hash of the
first letters of their name, as one maker's decks resemble each other.
"""

import csv
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGE = {"pysolfc-cardsets": "3.0+dfsg-1"}
_CARDS, _TILES = "1", "4"  # of PySol's kinds of decks
_TEST_SHARE = 0.2
RANKS = ("ace", *(str(rank) for rank in range(2, 11)), "jack", "queen", "king")


def cards(package: Path, out: Path) -> None:
    """Write ``images/<deck>/<card>.gif`` and ``cards.csv``: path, label (the rank, 13 classes) and split."""
    rows = []
    for deck, file in _pictures(package, _CARDS):
        rank, suit = file.stem[:2], file.stem[2:]
        if rank.isdigit() and suit in ("c", "d", "h", "s") and 1 <= int(rank) <= len(RANKS):
            path = Path("images") / deck / file.name
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, out / path)
            rows.append((str(path), RANKS[int(rank) - 1], _split(deck)))
    with (out / "cards.csv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows([("path", "label", "split"), *rows])


def tiles(package: Path, out: Path) -> None:
    """Write ``<split>/<tile>/<deck>.gif``: 42 classes of one picture a deck."""
    for deck, file in _pictures(package, _TILES):
        if len(file.stem) == 3 and file.stem[:2].isdigit():
            folder = out / _split(deck) / file.stem
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / f"{deck}{file.suffix}")


def _pictures(package: Path, kind: str) -> Iterator[tuple[str, Path]]:
    """Each deck's name and each of its pictures, for the decks of a kind."""
    for config in sorted((package / "usr/share/games/pysolfc").glob("cardset-*/config.txt")):
        words = config.read_text(encoding="latin-1").splitlines()[0].split(";")
        if words[3] == kind:
            deck = config.parent.name.removeprefix("cardset-")
            yield from ((deck, file) for file in sorted(config.parent.glob(f"*{words[2]}")))


def _split(deck: str) -> str:
    digest = hashlib.sha256(deck.split("-", maxsplit=1)[0][:7].encode()).digest()
    return "test" if digest[0] < 256 * _TEST_SHARE else "train"
