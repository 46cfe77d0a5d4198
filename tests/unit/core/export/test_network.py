import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reflux.components.core.errors import UserError
from reflux.components.core.export.network import fit_rows, load, sample
from reflux.components.modalities.image.models.pixel_model import ModelSpec
from reflux.components.modalities.image.preprocess import fit


@pytest.fixture
def write_sum(tmp_path):
    """Writes a network whose one logit is the sum of an image's levels."""

    def write(channels: int, side: int, kind: int = TensorProto.UINT8):
        nodes = [
            helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["levels"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axes"], ["logits"]),
        ]
        ports = [
            helper.make_tensor_value_info("pixels", kind, ["n", channels, side, side]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1]),
        ]
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
        graph = helper.make_graph(nodes, "sum", ports[:1], ports[1:], [axes])
        path = tmp_path / f"{channels}x{side}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
        return path

    return write


def test_a_network_brings_stored_images_to_its_own_size_and_channels(write_sum):
    color, gray = load(write_sum(3, 4)), load(write_sum(1, 4))
    assert (color.channels, color.image_size) == (3, 4)
    white = np.full((5, 16, 16, 1), 255, np.uint8)
    assert color.logits(white).tolist() == [[255 * 3 * 16]] * 5
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert gray.logits(red).tolist() == [[76 * 16]]  # 0.299 * 255 = 76


def test_a_file_that_takes_no_raw_pixels_is_refused(write_sum):
    with pytest.raises(UserError, match=r"takes float .*, not raw pixels uint8 \[N, C, H, W\]"):
        load(write_sum(1, 4, TensorProto.FLOAT))


def test_a_damaged_or_missing_file_is_one_sentence(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    for name in ("broken.onnx", "none.onnx"):
        with pytest.raises(UserError, match=rf"{name} can't be read .*reflux run") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_rows_are_fitted_a_few_at_a_time_in_their_order(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 1), dtype=np.uint8)
    rows = np.array([8, 0, 5, 5, 1])
    monkeypatch.setattr("reflux.components.core.data.shards._BYTES_AT_ONCE", 2 * 12 * 12)
    assert np.array_equal(fit_rows(images, rows, 8, 3), fit(images[rows], 8, 3))
    assert fit_rows(images, rows[:0], 8, 3).shape == (0, 3, 8, 8)


def test_the_sample_is_spread_over_the_split():
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    spec = ModelSpec("resnet8", ("a", "b"), 1, 1, (0.3,), (0.2,))
    assert sample(images, 5, spec).ravel().tolist() == [0, 25, 50, 74, 99]
    assert len(sample(images, 500, spec)) == 100
