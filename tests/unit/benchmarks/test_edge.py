"""The files that the benchmark compares, and the table that it makes of their figures."""

import numpy as np
import onnx

from benchmarks import edge
from benchmarks.results import write
from reflux.components.bench.measure import Row, Speed
from reflux.components.core.models.pixel_model import pixel_model


def test_beside_what_ships_stands_what_onnxruntime_makes_by_default(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 12, 12), dtype=np.uint8)
    files = edge.write_files(pixel_model("resnet8_tiny", ("a", "b"), 12, 1, [0.3], [0.2]), pixels, tmp_path)
    assert set(files) == set(edge.FILES.values())
    assert all(path.is_file() for path in files.values())
    types = {}
    for kind in ("int8", "defaults"):
        graph = onnx.load(files[edge.FILES[kind]]).graph
        points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
        types[kind] = {tensor.data_type for tensor in graph.initializer if tensor.name in points}
    assert types == {"int8": {onnx.TensorProto.UINT8}, "defaults": {onnx.TensorProto.INT8}}


def test_the_table_has_a_row_for_each_file_and_answers_of_the_trained_student_alone(tmp_path):
    speeds = tuple(Speed(1, batch, 0.1, 0.2, 0.5, 0.4, 0.6) for batch in edge.BATCHES)
    first = tuple(Speed(1, batch, 0.1, 0.2, 1.0, 1.0, 1.0) for batch in edge.BATCHES)
    figures = []
    for network in (edge.STUDENT, *edge.OTHERS):
        rows = [
            Row(name, "onnxruntime", "0" * 64, 2048, 0.75, 0.995, 12.0, 60.0, speeds if number else first)
            for number, name in enumerate(edge.FILES.values())
        ]
        figures += edge.figures_of(network, rows)
    write("edge", figures, tmp_path)
    table = edge.section(tmp_path).splitlines()
    assert table[2] == "| the default student | ONNX, fp32 | 2.0 | 75.00 | 99.50 | 1 | 1 | 12 | 60 |"
    ratios = "0.50 (0.40 … 0.60) | 0.50 (0.40 … 0.60)"
    assert table[3] == f"| the default student | ONNX, int8 | 2.0 | 75.00 | 99.50 | {ratios} | 12 | 60 |"
    assert f"| resnet8x4 | ONNX, int8 | 2.0 |  |  | {ratios} | 12 | 60 |" in table
