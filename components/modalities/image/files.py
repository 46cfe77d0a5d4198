"""Image files in folders, recognized by their suffixes, and opened only if they are regular files (issue 40)."""

import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.pixels import SUFFIXES, UnreadableImage

# Pictures that we can't read are named one by one: a folder of them must not vanish without a word.
_OTHER_PICTURES = (
    *(".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".ppm", ".pgm", ".pbm"),
    *(".tga", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".npy"),
)


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_BYTE = re.compile(r"\\x[0-9a-f]{2}")  # one that is no UTF-8, as it is shown
_CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # of DVC, which may check out every file as a link to it
# What the largest image of a format that is read can have: 16-bit RGBA without compression, and metadata.
_BYTES_A_PIXEL, _OTHER_BYTES = 8, 64 * 2**20


def open_file(path: Path) -> BufferedReader:
    """Open a regular file; nothing else is opened, as a pipe would wait and a device never end.

    Raises:
        UnreadableImage: it is no file.
        OSError: it can't be opened.
    """
    if not stat.S_ISREG(mode := path.stat().st_mode):
        raise UnreadableImage(f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')} and no file")
    return path.open("rb")


def read_image(path: Path, max_megapixels: float) -> bytes:
    """Read an image file, unless it is larger than an image of so many pixels can be.

    Raises:
        UnreadableImage: it is no file, or too large.
        OSError: it can't be read.
    """
    most = round(max_megapixels * 1e6 * _BYTES_A_PIXEL) + _OTHER_BYTES
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            return file.read(most)
    raise UnreadableImage(
        f"has {size / 1e6:,.0f} MB, more than the {most / 1e6:,.0f} that an image of ingest.max_megapixels "
        f"({max_megapixels:g}) can have"
    )


def leads_out(path: Path, folder: Path) -> bool:
    """Tell if a link on the way to a file leads out of a folder; DVC's cache counts as inside."""
    if not os.path.islink(path):  # Path.is_symlink raises where a name is too long for the disk
        real = _real(os.path.abspath(path.parent))
    elif _CACHED.search(real := os.path.realpath(path)):
        return False
    root = _real(os.path.abspath(folder))
    return real != root and not real.startswith(f"{root.rstrip(os.sep)}{os.sep}")


@lru_cache(maxsize=1024)  # a dataset has many files in few folders
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def refuse_strange_name(path: Path) -> None:
    """Refuse a name that is not UTF-8, which neither JSON nor Parquet, DVC or a screen takes.

    Raises:
        UserError: it is none.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        parts = (os.fsencode(part).decode(errors="backslashreplace") for part in (path, path.name))
        whole, name = (part.replace("'", "\\'") for part in parts)
        raise UserError(
            f"{whole} has a name that is not UTF-8: rename it, in bash with mv $'{whole}' and a new name, such as "
            f"{_BYTE.sub('_', name)}."
        ) from None


def refuse_strange_files(folder: Path) -> None:
    """Refuse a folder with pipes, devices, links that lead out of it or names that are not UTF-8; nothing is opened.

    Hidden ones are refused, too.

    Raises:
        UserError: it has one.
        OSError: a folder can't be read.
    """
    for where, folders, files in os.walk(folder, onerror=_raise):
        for path in (Path(where, name) for name in (*folders, *files)):
            refuse_strange_name(path)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) and leads_out(path, folder):
                kind = f"a link to {os.readlink(path)}"
            elif stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                continue
            else:
                kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            raise UserError(f"{folder} is not made of files and folders of its own: {path} is {kind}; take it out.")


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
