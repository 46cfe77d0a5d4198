"""Image files in folders, recognized by their suffixes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from reflux.components.core.images.pixels import SUFFIXES

# Pictures that we can't read are named one by one: a folder of them must not vanish without a word.
_OTHER_PICTURES = (
    *(".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".ppm", ".pgm", ".pbm"),
    *(".tga", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".npy"),
)


def is_picture(name: str) -> bool:
    """Tell pictures by their suffix, also those of formats that are not read."""
    return name.lower().endswith((*SUFFIXES, *_OTHER_PICTURES))


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder, at any depth, but hidden ones; links to files count, links to folders may loop.

    Raises:
        OSError: a folder can't be read.
    """
    for where, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where, name) for name in sorted(files) if not name.startswith("."))


def _raise(error: OSError) -> NoReturn:
    raise error
