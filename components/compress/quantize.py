"""Static quantization to 8-bit weights and activations, their ranges measured on training images."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from components.core.export.onnx_file import fit_rows
from components.core.export.program import INPUT
from components.core.images.shards import Images, Pixels
from components.core.models.pixel_model import ModelSpec

_BATCH = 64


def int8(model: ModelProto, pixels: Pixels) -> ModelProto:
    """Quantize an ONNX model statically: uint8 activations, int8 weights with a scale for each output channel.

    The operators stay standard ONNX (QuantizeLinear and DequantizeLinear around them), so that any runtime reads the
    file; normalization stays inside, in fp32. Activations are uint8, as onnxruntime joins no others into integer
    operators on x86, and logits stay floats, which calibrated ranges would clip (issue 17). ``pixels`` [N, C, H, W] are
    the images whose activations set the ranges: never validation or test images.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready, quantized = Path(folder, "ready.onnx"), Path(folder, "int8.onnx")
        onnx.save(with_pools(model), ready)
        quant_pre_process(ready, ready, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            ready,
            quantized,
            _Batches(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        return onnx.load(quantized)


def with_pools(model: ModelProto) -> ModelProto:
    """A copy whose means over height and width are GlobalAveragePool, which onnxruntime has for integers too."""
    graph = (pooled := ir.from_proto(model)).graph
    for node in list(graph):
        if _is_mean_over_pixels(node):
            new = [ir.node("GlobalAveragePool", [node.inputs[0]])]
            if not node.attributes.get_int("keepdims", 1):
                new.append(ir.node("Flatten", new[0].outputs, {"axis": 1}))
            ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, new[-1].outputs)
    ir.passes.common.RemoveUnusedNodesPass()(pooled)
    proto: ModelProto = ir.to_proto(pooled)
    return proto


def _is_mean_over_pixels(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean" or len(node.inputs) != 2:
        return False
    images, over = node.inputs
    if images is None or over is None or images.shape is None or len(images.shape) != 4:
        return False
    axes = ir.convenience.get_const_tensor(over)
    return axes is not None and sorted(axis % 4 for axis in axes.numpy().tolist()) == [2, 3]


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
