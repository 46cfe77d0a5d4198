import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.core.export.network import load
from reflux.components.modalities.image.models.pixel_model import parameter_count, pixel_model

CLASSES = ("cat", "dog", "naïve")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = pixel_model("resnet8", CLASSES, 12, 1, [0.3], [0.2])
    model.train()
    for _ in range(3):  # so that folding batch normalization has something to fold
        model(torch.randint(0, 256, (16, 1, 12, 12), dtype=torch.uint8))
    return model.eval()


@pytest.fixture(scope="module")
def exported(model):
    return program.export(model)


@pytest.fixture(scope="module")
def translated(exported):
    return program.to_onnx(exported)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 1, 12, 12), dtype=np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_a_program_takes_any_batch_of_raw_pixels(model, exported, pixels, batch):
    logits = program.forward(exported.module(), pixels[:batch])
    assert np.abs(logits - program.forward(model, pixels[:batch])).max() < 1e-5


def test_exporting_leaves_the_model_as_it_was(model):
    program.export(model.train(), batch=1)
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (
            "No <OpOverload(op='aten.conv2d', overload='default')>",
            "aten.conv2d in the layer net.trunk.0.0",
        ),
        ("its runtime lacks aten::convolution.out", "aten.convolution in the layer net.trunk.0.0"),  # decomposed
        ("its runtime lacks aten::roll", None),
        ("out of luck", None),
    ],
)
def test_the_operator_of_a_message_is_found_with_its_layer(exported, message, named):
    assert program.operator_in(message, exported) == named


def test_a_program_holds_no_path_of_the_machine_that_made_it(exported):
    traces = [node.meta.get("stack_trace") for node in exported.graph.nodes]
    assert not any(traces)


def test_the_slim_file_answers_like_the_model_at_any_batch(model, translated, pixels, tmp_path):
    onnx.save(program.slim(translated, CLASSES), tmp_path / "model.onnx")
    network = load(tmp_path / "model.onnx", threads=1)
    for batch in (1, 2, 5, 7):
        expected = program.forward(model, pixels[:batch])
        assert np.abs(network.run(pixels[:batch]) - expected).max() < 1e-5


def test_the_slim_file_is_little_more_than_its_weights(translated):
    small = program.slim(translated, CLASSES)
    weights = sum(4 * int(np.prod(tensor.dims)) for tensor in small.graph.initializer)
    assert not {node.op_type for node in small.graph.node} & {"BatchNormalization", "Identity"}
    assert weights < small.ByteSize() < weights + 3500 < translated.ByteSize()


def test_the_slim_file_names_its_ports_and_classes(translated):
    small = program.slim(translated, CLASSES)
    onnx.checker.check_model(small)
    assert [port.name for port in (*small.graph.input, *small.graph.output)] == ["pixels", "logits"]
    assert {entry.key: json.loads(entry.value) for entry in small.metadata_props} == {"classes": list(CLASSES)}
    sizes = small.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["batch", 1, 12, 12]
    assert small.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_slimming_leaves_the_original_whole_and_can_be_repeated(translated):
    before = translated.SerializeToString()
    once = program.slim(translated, CLASSES)
    assert translated.SerializeToString() == before
    assert program.slim(once, CLASSES).SerializeToString() == once.SerializeToString()


def test_the_same_model_gives_the_same_file(model, translated):
    again = program.to_onnx(program.export(model))
    assert program.slim(again, CLASSES).SerializeToString() == program.slim(translated, CLASSES).SerializeToString()


def test_a_damaged_program_is_one_sentence(tmp_path):
    (tmp_path / "broken.pt2").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"broken\.pt2 can't be read .*reflux run") as caught:
        load(tmp_path / "broken.pt2")
    assert "\n" not in str(caught.value)


@given(st.sets(st.integers(0, 10**6), max_size=50))
def test_short_names_differ(numbers):
    assert len({program._short(number) for number in numbers}) == len(numbers)


def test_short_names_are_short():
    assert max(len(program._short(number)) for number in range(36 * 36)) == 2


def test_branches_for_training_alone_are_joined_for_the_export():
    torch.manual_seed(0)
    model = pixel_model("mobileone_s0", CLASSES, 32, 3, [0.5] * 3, [0.25] * 3).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before = model(pixels)
    branched = parameter_count(model)
    model.net = program.deployed(model.net)
    assert parameter_count(model) < branched / 3
    assert (model(pixels) - before).abs().max() < 1e-5 * before.abs().max()
