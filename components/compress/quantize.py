"""Static quantization to int8 weights and activations, their ranges measured on training images."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from components.core.export.onnx_file import fit_rows
from components.core.export.program import INPUT
from components.core.images.shards import Images, Pixels
from components.core.models.pixel_model import ModelSpec

_BATCH = 64


def int8(model: ModelProto, pixels: Pixels) -> ModelProto:
    """Quantize an ONNX model statically: int8 activations, int8 weights with a scale for each output channel.

    The operators stay standard ONNX (QuantizeLinear and DequantizeLinear around them), so that any runtime reads the
    file; normalization stays inside, in fp32. ``pixels`` [N, C, H, W] are the images whose activations set the ranges:
    never validation or test images.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready, quantized = Path(folder, "ready.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, ready)
        quant_pre_process(ready, ready, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            ready,
            quantized,
            _Batches(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)


def sample(images: Images, count: int, spec: ModelSpec) -> Pixels:
    """At most ``count`` images, spread evenly over the split, as a model's files take them: [n, C, H, W]."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
    return fit_rows(images, rows, spec.image_size, spec.in_chans)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's warning for each vector that has no channels to quantize apart."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Batches(CalibrationDataReader):
    """Feeds the images to onnxruntime's calibration, a batch at a time."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches: Iterator[Pixels] = (pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH))

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
