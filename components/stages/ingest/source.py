"""The dataset as its owner keeps it: its format is recognized, not configured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.files import refuse_strange_files, refuse_strange_name
from reflux.components.stages.ingest.formats.labels import doubts, refuse_strange_classes
from reflux.components.stages.ingest.formats.register import FORMATS
from reflux.components.stages.ingest.items import Source
from reflux.components.stages.ingest.slices import GROUP, SLICES


def open_source(
    path: Path,
    slices: Sequence[str] = (),
    group: str | None = None,
    param: str = "ingest.source",
    named_by: str = SLICES,
) -> Source:
    """Recognize a dataset's format, and read everything about it but the images.

    Args:
        path: the dataset.
        slices: columns that its items keep.
        group: one more, unless it is one of these.
        param: the one that names the dataset, for messages.
        named_by: the one that names the ``slices``, likewise.

    Raises:
        UserError: there is nothing at ``path``, or no dataset with these columns.
    """
    kept = dict.fromkeys(slices, named_by)
    if group is not None:
        kept.setdefault(group, GROUP)
    try:
        if not path.exists():
            raise UserError(f"{param} = {path} does not exist: put a dataset there, or point {param} at yours.")
        refuse_strange_name(path)
        if path.is_dir():
            refuse_strange_files(path)
        known = next((each for each in reversed(FORMATS.values()) if each.recognize(path)), None)
        if known is None:
            kind = f"a {path.suffix.lower()} file" if path.suffix else "a file without an extension"
            raise UserError(f"{path} is {kind}, which is no dataset: give {_forms()}.")
        source = known.read(path, kept)
    except PermissionError as error:
        raise UserError(f"No permission to read {error.filename or path}: make it readable and run again.") from None
    if not source.count:
        raise UserError(f"{path} holds no images: give {_forms()}.")
    refuse_strange_classes(path, source.classes)
    return replace(source, doubts=(*source.doubts, *doubts(source.classes)))


def _forms() -> str:
    *forms, last = (each.form for each in FORMATS.values())
    return f"{', '.join(forms)}, or {last}"
