"""ExecuTorch programs for XNNPACK's kernels; in Python, ExecuTorch's runtime takes and gives tensors of torch."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from reflux.components.core.data.shards import Pixels
    from reflux.components.core.export.program import Source

REQUIREMENTS = ("numpy", "torch", "executorch")
_FILE = "model.pte"
_BYTE = 0  # torch's own number of uint8


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence deprecations of torch's that ExecuTorch earns, and torchao's search for a GPU's libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@_quiet()
def make(source: "Source", calibration: "Pixels | None") -> bytes:
    """Make a program, with the class names as its method ``classes`` (JSON).

    It takes one image: memory is planned ahead, and a device that answers one at a time would hold it for the largest
    batch.

    Raises:
        ValueError: the runtime lacks an operator, which is named.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    from reflux.components.core.export.program import export

    exported = export(source.student, batch=1)
    if calibration is not None:
        exported = _quantized(exported, calibration)
    constants = {"classes": json.dumps(source.student.spec.classes)}
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], constant_methods=constants)
    made = edge.to_executorch()
    known = set(Runtime.get().operator_registry.operator_names)
    names = (f"{each.name}.{each.overload}".rstrip(".") for each in made.executorch_program.execution_plan[0].operators)
    if lacks := sorted(set(names) - known):
        raise ValueError(f"its runtime lacks {', '.join(lacks)}")
    return bytes(made.buffer)


def _quantized(exported: "ExportedProgram", calibration: "Pixels") -> "ExportedProgram":
    """Quantize as XNNPACK computes: int8 weights with a scale for each output channel, int8 activations."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    observed = prepare_pt2e(exported.module(), quantizer)
    with torch.no_grad():
        for row in range(len(calibration)):
            observed(torch.from_numpy(calibration[row : row + 1]))
        example = torch.zeros(1, *calibration.shape[1:], dtype=torch.uint8)
        return torch.export.export(convert_pt2e(observed), (example,))


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Silence what ExecuTorch's C++ reports of the CPU, whose files for ARM it does not find elsewhere."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def load(path: Path, threads: int) -> tuple[Callable[..., Any], str, list[int | str]]:
    """Open a program; its threads are those of all programs in the process."""
    with _quiet(), _without_stderr():
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if threads:
            portable_lib._unsafe_reset_threadpool(threads)
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
    takes = method.metadata.input_tensor_meta(0)
    # Its own: the strides of an array with one channel may look like channels-last, which the program refuses.
    pixels = torch.zeros(*takes.sizes(), dtype=torch.uint8)

    def run(images: Any) -> Any:
        program  # noqa: B018 - it must live as long as its method
        rows = []
        for image in images:
            pixels.numpy()[0] = image
            rows.append(method.execute([pixels])[0].numpy().copy())
        return np.concatenate(rows)

    return run, {_BYTE: "uint8"}.get(takes.dtype(), f"type {takes.dtype()}"), list(takes.sizes())


class _Served:
    """The model as MLflow's pyfunc wants it."""

    def __init__(self, folder: str) -> None:
        self._run, _, _ = load(Path(folder, _FILE), threads=0)

    def predict(self, pixels: Any, params: Any = None) -> dict[str, Any]:
        return {"logits": self._run(pixels)}


_load_pyfunc = _Served
