"""ONNX files, run by onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reflux.components.core.data.shards import Pixels
    from reflux.components.core.export.program import Source

REQUIREMENTS = ("numpy", "onnxruntime")


def make(source: "Source", calibration: "Pixels | None") -> bytes:
    """Make a file without what no runtime reads, with the class names in it."""
    from reflux.components.core.export import program
    from reflux.components.modalities.image import quantize

    model = source.translated if calibration is None else quantize.int8(source.translated, calibration)
    return program.slim(model, source.student.spec.classes).SerializeToString()


def load(path: Path, threads: int) -> tuple[Callable[..., Any], str, list[int | str]]:
    """Open a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(not threads)))
    options.log_severity_level = 3  # errors only: its warnings are about the options
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    dtype = pixels.type.removeprefix("tensor(").removesuffix(")")
    return lambda images: session.run(None, {pixels.name: images})[0], dtype, pixels.shape
