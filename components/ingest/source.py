"""The dataset as its owner keeps it: found out, not configured."""

from collections.abc import Sequence
from pathlib import Path

from components.core.errors import UserError, listed
from components.ingest import folders, tables
from components.ingest.items import Source


def open_source(path: Path, slices: Sequence[str] = ()) -> Source:
    """Find out which form a dataset has, and read everything about it but the images.

    Args:
        path: the dataset.
        slices: the columns that each image's ``slices`` are taken from.

    Raises:
        UserError: there is nothing at ``path``, or nothing that is a dataset with these columns.
    """
    try:
        if not path.exists():
            raise UserError(
                f"ingest.source {path} does not exist: put a dataset there, or point ingest.source at yours."
            )
        if path.is_file() or tables.found(path):
            return tables.read(path, slices)
        if slices:
            raise UserError(
                f"ingest.slices names columns ({listed(slices, 3)}), and {path} is a folder of images, which has none: "
                "list the images in a CSV or Parquet manifest with these columns, or set ingest.slices to []."
            )
        return folders.read(path)
    except PermissionError as error:
        raise UserError(f"No permission to read {error.filename or path}: make it readable and run again.") from None
