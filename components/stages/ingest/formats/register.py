"""The formats of datasets by name: each is registered next to its reader."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reflux.components.core.registry import Registry
from reflux.components.stages.ingest.items import Source

Read = Callable[[Path, Mapping[str, str]], Source]


@dataclass(frozen=True)
class Format:
    """A format of datasets; see :func:`dataset_format`."""

    form: str
    recognize: Callable[[Path], bool]
    read: Read


FORMATS: Registry[Format] = Registry("formats")


def dataset_format(name: str, form: str, recognize: Callable[[Path], bool]) -> Callable[[Read], Read]:
    """Register the reader of a format; a dataset is read by the format registered last of those that recognize it.

    The reader is called as ``read(path, kept)`` and returns everything but the images' pixels. ``kept`` are the columns
    that its items keep in their ``slices``, in this order, each with the param that names it, for messages.

    Args:
        name: for messages.
        form: the format in a few words, as in "a CSV manifest".
        recognize: tells whether a file or folder, which exists, is a dataset of this format.

    Raises:
        ValueError: the name is taken.
    """
    return FORMATS.registers(name, lambda read: Format(form, recognize, read))
