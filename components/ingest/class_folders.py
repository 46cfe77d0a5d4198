"""Class folders: ``split/class/*.png``, or ``class/*.png`` without splits, and a folder ``unlabeled`` in either."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from components.core.errors import UserError, listed
from components.core.images.pixels import SUFFIXES
from components.core.images.shards import UNLABELED
from components.ingest.items import Item, Source
from components.ingest.splits import split_of

# Pictures that we can't read are quarantined by name: a folder of them must not vanish without a word.
_OTHER_PICTURES = (
    *(".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".ppm", ".pgm", ".pbm"),
    *(".tga", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".npy"),
)


FORM = "class folders (class/*.png or train/class/*.png)"


def recognize(path: Path) -> bool:
    """Take any folder: no other format wanted it."""
    return path.is_dir()


def read(root: Path, slices: Sequence[str]) -> Source:
    """Read a tree of class folders.

    Raises:
        UserError: images are outside of class folders, or ``slices`` names columns, which a folder has none of.
    """
    if slices:
        raise UserError(
            f"ingest.slices names columns ({listed(slices, 3)}), and {root} is a folder of images, which has none: "
            "list the images in a CSV or Parquet manifest with these columns, or set ingest.slices to []."
        )
    ignored: list[str] = []
    folders = _subfolders(root)
    unlabeled = [f for f in folders if split_of(f.name) == "unlabeled"]
    others = [f for f in folders if f not in unlabeled]
    splits = [f for f in others if split_of(f.name) and _subfolders(f)]
    if splits:
        _refuse_strangers(root, [f for f in others if f not in splits])
        inside = [(split_of(split.name), folder) for split in splits for folder in _subfolders(split)]
        unlabeled += [folder for _, folder in inside if split_of(folder.name) == "unlabeled"]
        classed = [(split, folder) for split, folder in inside if folder not in unlabeled]
    else:
        classed = [(None, folder) for folder in others]
    _refuse_loose_images(root, [root, *splits])
    if not splits and others and all(split_of(f.name) for f in others):
        _refuse_loose_images(root, others)
    classes = sorted({folder.name for _, folder in classed})
    label_of = {name: label for label, name in enumerate(classes)}
    labeled = [(split, label_of[folder.name], folder) for split, folder in classed]
    items = [
        Item(str(file.relative_to(root)), split, label, file)
        for split, label, folder in [*labeled, *(("unlabeled", UNLABELED, folder) for folder in unlabeled)]
        for file in _pictures(root, folder, ignored)
    ]
    return Source(classes, len(items), items, ignored)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_picture(name: str) -> bool:
    return name.lower().endswith((*SUFFIXES, *_OTHER_PICTURES))


def _pictures(root: Path, folder: Path, ignored: list[str]) -> Iterator[Path]:
    """The pictures in a folder, at any depth; links to files count, but not links to folders, which may loop."""
    for where, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(f for f in files if not f.startswith(".")):
            if _is_picture(name):
                yield Path(where, name)
            else:
                ignored.append(str(Path(where, name).relative_to(root)))


def _refuse_strangers(root: Path, strangers: list[Path]) -> None:
    if strangers:
        names = listed([f"{f.name}/" for f in strangers], 5)
        raise UserError(
            f"{root} has folders of splits and next to them {names}: move the images into train/<class>/, "
            "val/<class>/, test/<class>/ or unlabeled/, or rename the folder with a leading dot."
        )


def _refuse_loose_images(root: Path, folders: list[Path]) -> None:
    for folder in folders:
        loose = sorted(path.name for path in folder.iterdir() if path.is_file() and _is_picture(path.name))
        if loose:
            raise UserError(
                f"{folder} holds images outside of class folders ({listed(loose, 3)}): move each into a folder named "
                "after its class, or into unlabeled/ if it has none."
            )


def _raise(error: OSError) -> NoReturn:
    raise error
