"""``torch.export`` programs, run by torch."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reflux.components.core.data.shards import Pixels
    from reflux.components.core.export.program import Source

REQUIREMENTS = ("numpy", "torch")


def make(source: "Source", calibration: "Pixels | None") -> bytes:
    """Make a program; there are none in int8."""
    import torch

    # Through memory: torch writes the file's own name into it, and ours is temporary.
    buffer = io.BytesIO()
    torch.export.save(source.exported, buffer)
    return buffer.getvalue()


def load(path: Path, threads: int) -> tuple[Callable[..., Any], str, list[int | str]]:
    """Open a program."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it logs a traceback of what it then raises
    program = torch.export.load(path)
    module, (pixels,) = program.module(), program.example_inputs[0]

    @torch.inference_mode()
    def run(images: Any) -> Any:
        return module(torch.from_numpy(images)).numpy()

    return run, str(pixels.dtype).removeprefix("torch."), list(pixels.shape)
