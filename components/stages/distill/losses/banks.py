"""The room that memory banks may take."""

import os

from reflux.components.core.errors import UserError


def refuse_large_banks(method: str, images: int, size: int, remedy: str) -> None:
    """Check that a method's memory banks fit into this machine's memory.

    Args:
        method: as in ``distill.method``.
        images: that they remember.
        size: of the banks in bytes.
        remedy: what to do where they don't.

    Raises:
        UserError: they don't.
    """
    copies = 3 * size  # in training, in the kept weights, and in the checkpoint being written
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if copies > memory:
        raise UserError(
            f"distill.method {method} keeps memory banks of {images:,} images, which take {copies / 2**30:,.1f} GiB "
            f"with their copies, where this machine has {memory / 2**30:,.1f}: {remedy}."
        )
