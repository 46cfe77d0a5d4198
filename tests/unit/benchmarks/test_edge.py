"""The files that the benchmark compares, and the table that it makes of their figures."""

import numpy as np
import onnx

from benchmarks import edge
from benchmarks.harness.results import write
from reflux.components.bench.report import Row, Speed
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
    time = {"threads": 1, "ms_p50": 0.1, "ms_p95": 0.2, "cpu_ms": 0.1}
    half, one = ({"cpu": 0.5, "cpu_low": 0.4, "cpu_high": 0.6}, dict.fromkeys(("cpu", "cpu_low", "cpu_high"), 1.0))
    speeds, first = (tuple(Speed(batch=batch, **time, **each) for batch in edge.BATCHES) for each in (half, one))
    facts = {"runtime": "onnxruntime", "runtime_version": "1.32.0", "sha256": "0" * 64, "size_bytes": 2048}
    facts |= {"accuracy": 0.75, "agreement": 0.995, "reproduced": 1.0, "load_ms": 12.0, "peak_mb": 60.0}
    figures = []
    for network in (edge.STUDENT, *edge.OTHERS):
        rows = [
            Row(name=name, **facts, speeds=speeds if number else first)
            for number, name in enumerate(edge.FILES.values())
        ]
        figures += edge.figures_of(network, rows)
    write("edge", figures, tmp_path)
    table = edge.section(tmp_path).splitlines()
    assert table[2] == "| the default student | ONNX, fp32 | 2.0 | 75.00 | 99.50 | 1 | 1 | 12 | 60 |"
    ratios = "0.50 (0.40 … 0.60) | 0.50 (0.40 … 0.60)"
    assert table[3] == f"| the default student | ONNX, int8 | 2.0 | 75.00 | 99.50 | {ratios} | 12 | 60 |"
    assert f"| resnet8x4 | ONNX, int8 | 2.0 |  |  | {ratios} | 12 | 60 |" in table
