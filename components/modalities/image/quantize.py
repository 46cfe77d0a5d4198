"""Static quantization of ONNX models to integer weights and activations, their ranges measured on training images."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from reflux.components.core.data.shards import Pixels
from reflux.components.core.export.program import INPUT

_BATCH = 64


def int8(model: ModelProto, pixels: Pixels) -> ModelProto:
    """Quantize an ONNX model statically: uint8 activations, int8 weights with a scale for each output channel.

    The operators stay standard ONNX (QuantizeLinear and DequantizeLinear around them), so that any runtime reads the
    file. Normalization stays inside: of gray pixels as the first convolution's scale and zero point, which takes the
    pixels as they are, and of color pixels in fp32. Activations are uint8, as onnxruntime joins no others into integer
    operators on x86, and logits stay floats, which calibrated ranges would clip. ``pixels`` [N, C, H, W] are
    the images whose activations set the ranges: never validation or test images.

    Weights use 7 of their 8 bits, from -64 to 64. x86 processors without VNNI add two products in 16 bits (vpmaddubsw),
    and 2 * 255 * 127 does not fit. On a Haswell, emulated by qemu, the default student with 8 bits was right on 82.80 %
    of the test images, and on 84.74 % with VNNI; with 7 bits it is 84.66 % on both, whose logits are the same bits (the
    fp32 file: 84.72 %).
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready, quantized = Path(folder, "ready.onnx"), Path(folder, "int8.onnx")
        onnx.save(with_pools(model), ready)
        quant_pre_process(ready, ready, skip_optimization=True, skip_symbolic_shape=True)
        normal = _normalization(onnx.load(ready))
        quantize_static(
            ready,
            quantized,
            Batches(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
                "TensorQuantOverrides": {normal.value: [_as_pixels(normal)]} if normal else {},
            },
        )
        return _fed_with_pixels(onnx.load(quantized), normal) if normal else onnx.load(quantized)


@dataclass(frozen=True)
class _Normalization:
    """What a network does with its pixels first, where that is the same for all channels.

    Attributes:
        value: the normalized pixels' name.
        mean, std: on the pixels' scale of 0..255.
    """

    value: str
    mean: float
    std: float


def _normalization(model: ModelProto) -> _Normalization | None:
    """Find ``(pixels - mean) / std`` at the beginning of a model; None where channels differ, which no kernel fuses."""
    graph = ir.from_proto(model).graph
    value, numbers = graph.inputs[0], []
    for op_type in ("Cast", "Sub", "Div"):
        users = value.consumers()
        if len(users) != 1 or users[0].op_type != op_type or users[0].inputs[0] is not value:
            return None
        node, value = users[0], users[0].outputs[0]
        if op_type != "Cast":
            operand = node.inputs[1]
            constant = ir.convenience.get_const_tensor(operand) if operand is not None else None
            if constant is None or np.ptp(constant.numpy()):
                return None
            numbers.append(float(constant.numpy().flat[0]))
    return _Normalization(str(value.name), *numbers)


def _as_pixels(normal: _Normalization) -> dict[str, Any]:
    """The quantization of normalized pixels whose integers are the pixels, but for the mean's fraction."""
    return {"scale": np.array(1 / normal.std, np.float32), "zero_point": np.array(round(normal.mean), np.uint8)}


def _fed_with_pixels(model: ModelProto, normal: _Normalization) -> ModelProto:
    """Take the pixels for what they would be quantized to, so that nothing is done with them in floats."""
    graph = (fed := ir.from_proto(model)).graph
    for node in graph:
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None and node.inputs[0].name == normal.value:
            ir.convenience.replace_all_uses_with(node.outputs[0], graph.inputs[0])
    ir.passes.common.RemoveUnusedNodesPass()(fed)
    proto: ModelProto = ir.to_proto(fed)
    return proto


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's warning for each vector that has no channels to quantize apart."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Batches(CalibrationDataReader):
    """Feeds the images to onnxruntime's calibration, a batch at a time."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches: Iterator[Pixels] = (pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH))

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
