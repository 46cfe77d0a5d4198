"""Class folders: ``split/class/*.png``, or ``class/*.png`` without splits, and a folder ``unlabeled`` in either."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from reflux.components.core.data.shards import UNLABELED
from reflux.components.core.errors import UserError, listed
from reflux.components.modalities.image.files import files_below, is_picture
from reflux.components.stages.ingest.formats.register import dataset_format
from reflux.components.stages.ingest.items import Item, Source
from reflux.components.stages.ingest.slices import refuse_any
from reflux.components.stages.ingest.splits import split_of


def recognize(path: Path) -> bool:
    """Take any folder: no other format wanted it."""
    return path.is_dir()


@dataset_format("class-folders", "class folders (class/*.png or train/class/*.png)", recognize)
def read(root: Path, kept: Mapping[str, str]) -> Source:
    """Read a tree of class folders.

    Raises:
        UserError: images are outside of class folders, or columns are to be ``kept``, which a folder has none of.
    """
    refuse_any(root, kept)
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
        _refuse_splits_below(root, others)
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
    return Source(classes, len(items), items, ignored, _doubts(root, [folder for _, folder in classed]))


def _doubts(root: Path, folders: list[Path]) -> tuple[str, ...]:
    """A sentence where the classes seem to be one level further down."""
    below = [folder for each in folders for folder in _subfolders(each)]
    # Folders inside of classes (of patients, say) are fine, but then a name is rarely in one class alone.
    apart = len({folder.name for folder in below}) == len(below)
    if len(folders) < 2 or not apart or not all(len(_subfolders(f)) > 1 and not _has_picture(f) for f in folders):
        return ()
    classes, folders_below = (listed(sorted(f.name for f in each), 4) for each in (folders, below))
    return (
        f"the classes of {root} are {classes}, which hold no images but folders ({folders_below}): if these are the "
        "classes, give a folder further down",
    )


def _has_picture(folder: Path) -> bool:
    return any(entry.is_file() and is_picture(entry.name) for entry in os.scandir(folder))


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder but hidden ones; a link to another one adds nothing, as its files are found there."""
    found = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(path for path in found if not path.name.startswith("."))


def _pictures(root: Path, folder: Path, ignored: list[str]) -> Iterator[Path]:
    """The pictures in a folder, at any depth; the names of its other files go to ``ignored``."""
    for file in files_below(folder):
        if is_picture(file.name):
            yield file
        else:
            ignored.append(str(file.relative_to(root)))


def _refuse_strangers(root: Path, strangers: list[Path]) -> None:
    if strangers:
        names = listed([f"{f.name}/" for f in strangers], 5)
        raise UserError(
            f"{root} has folders of splits and next to them {names}: move the images into train/<class>/, "
            "val/<class>/, test/<class>/ or unlabeled/, or rename the folder with a leading dot."
        )


def _refuse_splits_below(root: Path, folders: list[Path]) -> None:
    for folder in folders:
        splits = [f.name for f in _subfolders(folder) if split_of(f.name) and any(True for _ in _pictures(root, f, []))]
        if splits:
            raise UserError(
                f"{root} has folders of splits inside of {folder.name}/ ({listed(splits, 3)}): if {folder.name} is a "
                f"dataset, give {folder}; if it is a class, move its images into train/{folder.name}/ and so on."
            )


def _refuse_loose_images(root: Path, folders: list[Path]) -> None:
    for folder in folders:
        loose = sorted(path.name for path in folder.iterdir() if path.is_file() and is_picture(path.name))
        if loose:
            raise UserError(
                f"{folder} holds images outside of class folders ({listed(loose, 3)}): move each into a folder named "
                "after its class, or into unlabeled/ if it has none."
            )
