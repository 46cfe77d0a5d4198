import logging
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from reflux.components.core.export import program
from reflux.components.core.export.network import load
from reflux.components.modalities.image import quantize
from reflux.components.modalities.image.models.pixel_model import pixel_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pixel_model("resnet8", ("a", "b", "c"), 12, 1, [0.3], [0.2]).eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (80, 1, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def translated(model):
    return program.to_onnx(program.export(model))


@pytest.fixture(scope="module")
def quantized(translated, pixels):
    return program.slim(quantize.int8(translated, pixels), ("a", "b", "c"))


def test_it_answers_almost_like_the_student(model, quantized, pixels, tmp_path):
    onnx.save(quantized, tmp_path / "int8.onnx")
    network = load(tmp_path / "int8.onnx", threads=1)
    expected = program.forward(model, pixels)
    for batch in (1, 5, 80):
        error = np.abs(network.run(pixels[:batch]) - expected[:batch]).max()
        assert 0 < error < 0.1 * np.ptp(expected)


def test_weights_are_int8_with_a_scale_for_each_output_channel(quantized):
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    scales = [
        (tensors[node.input[0]], tensors[node.input[1]])
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors and tensors[node.input[0]].ndim == 4
    ]
    assert scales
    assert all(weight.dtype == np.int8 and scale.shape == (len(weight),) for weight, scale in scales)


def test_no_two_products_overflow_16_bits(quantized):
    """Or processors without VNNI, which add them so, would answer otherwise."""
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer]
    largest = max(
        int(np.abs(weight.astype(int)).max()) for weight in weights if weight.dtype == np.int8 and weight.ndim
    )
    assert largest > 60
    assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_onnxruntime_computes_all_but_the_head_in_integers(quantized, tmp_path):
    onnx.save(quantized, tmp_path / "int8.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as-run.onnx")
    ort.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    as_run = Counter(node.op_type for node in onnx.load(tmp_path / "as-run.onnx").graph.node)
    convolutions = sum(node.op_type == "Conv" for node in quantized.graph.node)
    assert (as_run["QLinearConv"], as_run["QLinearGlobalAveragePool"]) == (convolutions, 1)
    assert as_run["Conv"] == as_run["FusedConv"] == as_run["ReduceMean"] == as_run["Cast"] == 0


@pytest.mark.parametrize(
    ("mean", "std", "floats"),
    [([0.3] * 3, [0.2] * 3, 0), ([0.3, 0.3, 0.4], [0.2] * 3, 1), ([0.3] * 3, [0.2, 0.3, 0.2], 1)],
)
def test_pixels_are_taken_as_they_are_where_channels_are_normalized_alike(mean, std, floats, pixels, tmp_path):
    torch.manual_seed(0)
    student = pixel_model("resnet8_tiny", ("a", "b", "c"), 12, 3, mean, std).eval()
    colored = np.repeat(pixels, 3, axis=1)
    quantized = quantize.int8(program.to_onnx(program.export(student)), colored)
    assert sum(node.op_type in ("Cast", "Sub", "Div") for node in quantized.graph.node) == 3 * floats
    onnx.save(quantized, tmp_path / "int8.onnx")
    expected = program.forward(student, colored)
    assert np.abs(load(tmp_path / "int8.onnx").run(colored) - expected).max() < 0.1 * np.ptp(expected)


def test_logits_are_floats_that_no_calibrated_range_clips(quantized):
    (last,) = (node for node in quantized.graph.node if "logits" in node.output)
    assert last.op_type == "Gemm"


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("axes", "pools"), [([2, 3], 1), ([-1, -2], 1), ([1], 0), ([1, 2, 3], 0)])
def test_a_mean_over_pixels_becomes_a_pool_of_the_same_values(axes, pools, keepdims):
    shape = [2, 3, 4, 5]
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x",)]
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)
    constant = onnx.numpy_helper.from_array(np.array(axes), "axes")
    graph = onnx.helper.make_graph([node], "mean", ports, [out], [constant])
    mean = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    pooled = quantize.with_pools(mean)
    assert sum(node.op_type == "GlobalAveragePool" for node in pooled.graph.node) == pools
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    values = [ort.InferenceSession(each.SerializeToString()).run(None, {"x": x})[0] for each in (mean, pooled)]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_any_runtime_can_read_it(quantized):
    onnx.checker.check_model(quantized)
    assert {node.domain for node in quantized.graph.node} == {""}
    assert quantized.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_it_is_smaller(translated, quantized):
    assert quantized.ByteSize() < 0.5 * program.slim(translated, ("a", "b", "c")).ByteSize()


def test_quantizing_leaves_the_original_whole(translated, pixels):
    before = translated.SerializeToString()
    quantize.int8(translated, pixels[:4])
    assert translated.SerializeToString() == before


def test_logging_goes_on_afterwards(translated, pixels):
    before = logging.root.manager.disable
    quantize.int8(translated, pixels[:4])
    assert logging.root.manager.disable == before
