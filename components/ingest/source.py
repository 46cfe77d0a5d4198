"""The dataset as its owner keeps it: found out, not configured."""

from pathlib import Path

from components.core.errors import UserError
from components.ingest import folders, tables
from components.ingest.items import Source


def open_source(path: Path) -> Source:
    """Find out which form a dataset has, and read everything about it but the images.

    Raises:
        UserError: there is nothing at ``path``, or nothing that is a dataset.
    """
    try:
        if not path.exists():
            raise UserError(
                f"ingest.source {path} does not exist: put a dataset there, or point ingest.source at yours."
            )
        if path.is_file() or tables.found(path):
            return tables.read(path)
        return folders.read(path)
    except PermissionError as error:
        raise UserError(f"No permission to read {error.filename or path}: make it readable and run again.") from None
