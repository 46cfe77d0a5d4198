"""Files under ``artifacts/``: written atomically, identified by their hash."""

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reflux.components.core.errors import UserError

ARTIFACTS = Path("artifacts")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # begins one, as OWASP's "CSV Injection" lists


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` that replaces it when the block succeeds.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays last: NumPy, torch and pandas choose a format, or append one, by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise translate_os_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def translate_os_error(error: OSError, path: Path) -> Exception:
    """Translate an OSError at ``path`` that the user can fix into a UserError; return any other as it is."""
    # NumPy names no error number when a disk takes only a part of an array: "1000 requested and 12 written".
    cut_short = error.errno is None and "requested and" in str(error)
    if cut_short or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"No space left on the disk to write {path}: free some space and run again.")
    if error.errno in (errno.EACCES, errno.EPERM) and os.access(path, os.F_OK) and not os.access(path, os.R_OK):
        return UserError(f"No permission to read {path}: make it readable and run again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"No permission to write {path}: make {path.parent} writable and run again.")
    if error.errno == errno.EISDIR:
        return UserError(f"{path} is a folder, where a file should be: move it away and run again.")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return UserError(
            f"{path} can't be written: a file stands where a folder should be; move it away and run again."
        )
    return error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused because JSON has none."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON artifact.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it (`reflux run`).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run `reflux run`.") from None


def as_cell(value: Any) -> Any:
    """A value as a cell of a CSV file, in which a spreadsheet takes no text for a formula; numbers stay as they are.

    >>> as_cell("=1+1"), as_cell("-0.5"), as_cell(-0.5)
    ("'=1+1", '-0.5', -0.5)
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """The sha256 that identifies an input: a file's bytes, or a folder's file names and bytes."""
    if path.is_file():
        return sha256_file(path)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return total.hexdigest()


def finite(values: dict[str, float]) -> dict[str, float]:
    """Drop the figures that were not measured: a NaN is absent, never zero."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
