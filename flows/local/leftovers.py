"""What is kept between runs in ``.reflux``, and no run will use any more: checkpoints and soft labels."""

import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from reflux.components.core.runtime.stage import CHECKPOINTS
from reflux.flows.local.environment import SOFT_LABELS

_REMOVED = ".removed-"  # begins the name of a folder that is being removed; nothing reads one that begins with a dot


def checkpoints(homes: Iterable[Path], before: datetime) -> list[Path]:
    """The folders of training runs that were interrupted before a time, and never resumed.

    Args:
        homes: ``.reflux``, and those of workers.
        before: when they must have been written.
    """
    return [folder for folder in _folders(homes, CHECKPOINTS) if _is_old(folder, before)]


def soft_labels(homes: Iterable[Path], kept: Collection[str], before: datetime) -> list[Path]:
    """The stores from before a time whose keys are not among those to be kept."""
    names = {key[:32] for key in kept}
    return [folder for folder in _folders(homes, SOFT_LABELS) if folder.name not in names and _is_old(folder, before)]


def size(paths: Iterable[Path]) -> int:
    """The bytes that are freed: a file that has another name as well, as in DVC's cache, stays."""
    files = (file.stat() for path in paths for file in _files(path))
    return sum(file.st_size for file in files if file.st_nlink == 1)


def remove(folders: Sequence[Path]) -> None:
    """Remove folders, each under another name first, so that none is found with a part of its files."""
    for folder in folders:
        renamed = folder if _was_removed(folder) else folder.rename(folder.with_name(f"{_REMOVED}{folder.name}"))
        shutil.rmtree(renamed)


def _folders(homes: Iterable[Path], kind: Path) -> Iterator[Path]:
    for home in homes:
        for folder in sorted((home / kind.name).glob("*")):
            if folder.is_dir() and _files(folder):
                yield folder


def _is_old(folder: Path, before: datetime) -> bool:
    return _was_removed(folder) or max(file.stat().st_mtime for file in _files(folder)) < before.timestamp()


def _was_removed(folder: Path) -> bool:
    """Tell whether a killed process has begun to remove it."""
    return folder.name.startswith(_REMOVED)


def _files(path: Path) -> list[Path]:
    """The files of a folder; a file is its own."""
    return [file for file in (path, *path.rglob("*")) if file.is_file()]
