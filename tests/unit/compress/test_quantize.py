import logging

import numpy as np
import onnx
import pytest
import torch

from components.compress import quantize
from components.core.export import onnx_file, program
from components.core.models.pixel_model import ModelSpec, pixel_model


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
    network = onnx_file.Network(tmp_path / "int8.onnx", threads=1)
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


def test_the_sample_is_spread_over_the_split():
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    spec = ModelSpec("resnet8", ("a", "b"), 1, 1, (0.3,), (0.2,))
    assert quantize.sample(images, 5, spec).ravel().tolist() == [0, 25, 50, 74, 99]
    assert len(quantize.sample(images, 500, spec)) == 100
