"""The files that the benchmark compares."""

import numpy as np
import onnx

from benchmarks.edge.files import FILES, write_files
from reflux.components.modalities.image.models.pixel_model import pixel_model


def test_beside_what_ships_stands_what_onnxruntime_makes_by_default(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 12, 12), dtype=np.uint8)
    files = write_files(pixel_model("resnet8_tiny", ("a", "b"), 12, 1, [0.3], [0.2]), pixels, tmp_path)
    assert set(files) == set(FILES.values())
    assert all(path.is_file() for path in files.values())
    types = {}
    for kind in ("int8", "defaults"):
        graph = onnx.load(files[FILES[kind]]).graph
        points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
        types[kind] = {tensor.data_type for tensor in graph.initializer if tensor.name in points}
    assert types == {"int8": {onnx.TensorProto.UINT8}, "defaults": {onnx.TensorProto.INT8}}
