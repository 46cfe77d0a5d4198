"""A file that is measured, opened in its own runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UserError
from components.core.export.onnx_file import Logits, Network, readable
from components.core.images.shards import Pixels

RUNTIMES = {".onnx": "onnxruntime", ".pt2": "torch"}


@dataclass(frozen=True)
class Opened:
    """A file in its runtime.

    Attributes:
        run: from pixels uint8 [N, channels, image_size, image_size] to logits [N, K].
        channels, image_size: that it takes.
    """

    run: Callable[[Pixels], Logits]
    channels: int
    image_size: int


def refuse(path: Path) -> None:
    """Refuse what is no file of a runtime that is known here.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: give an .onnx or .pt2 file, or the number of a version.")
    if path.suffix not in RUNTIMES:
        raise UserError(f"{path} has no runtime here: give an .onnx file or a .pt2 program.")


def opened(path: Path, threads: int) -> Opened:
    """Open a file; its threads sleep at once when they have nothing to do, so that no time is charged to others.

    Raises:
        UserError: it is damaged, or takes something else than raw pixels.
    """
    if path.suffix == ".onnx":
        network = Network(path, threads, spin=False)
        return Opened(network.run, network.channels, network.image_size)
    import torch

    from components.core.export.program import forward

    torch.set_num_threads(threads)
    with readable(path):
        program = torch.export.load(path)
    inputs: Sequence[torch.Tensor] = program.example_inputs[0] if program.example_inputs else ()
    if len(inputs) != 1 or inputs[0].ndim != 4 or inputs[0].dtype != torch.uint8:
        raise UserError(f"{path} does not take raw pixels, uint8 [N, C, H, W]: give a program that Reflux wrote.")
    module = program.module()
    return Opened(lambda pixels: forward(module, pixels), inputs[0].shape[1], inputs[0].shape[2])
