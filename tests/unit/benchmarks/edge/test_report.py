"""The table that the benchmark makes of its figures."""

from benchmarks.edge.files import FILES
from benchmarks.edge.networks import BATCHES, OTHERS, STUDENT
from benchmarks.edge.report import figures_of, section
from benchmarks.harness.results import write
from reflux.components.advice.bench.report import Row, Speed


def test_the_table_has_a_row_for_each_file_and_answers_of_the_trained_student_alone(tmp_path):
    time = {"threads": 1, "ms_p50": 0.1, "ms_p95": 0.2, "cpu_ms": 0.1}
    half, one = ({"cpu": 0.5, "cpu_low": 0.4, "cpu_high": 0.6}, dict.fromkeys(("cpu", "cpu_low", "cpu_high"), 1.0))
    speeds, first = (tuple(Speed(batch=batch, **time, **each) for batch in BATCHES) for each in (half, one))
    facts = {"runtime": "onnxruntime", "runtime_version": "1.32.0", "sha256": "0" * 64, "size_bytes": 2048}
    facts |= {"accuracy": 0.75, "agreement": 0.995, "reproduced": 1.0, "load_ms": 12.0, "peak_mb": 60.0}
    figures = []
    for network in (STUDENT, *OTHERS):
        rows = [
            Row(name=name, **facts, speeds=speeds if number else first) for number, name in enumerate(FILES.values())
        ]
        figures += figures_of(network, rows)
    write("edge", figures, tmp_path)
    table = section(tmp_path).splitlines()
    assert table[2] == "| the default student | ONNX, fp32 | 2.0 | 75.00 | 99.50 | 1 | 1 | 12 | 60 |"
    ratios = "0.50 (0.40 … 0.60) | 0.50 (0.40 … 0.60)"
    assert table[3] == f"| the default student | ONNX, int8 | 2.0 | 75.00 | 99.50 | {ratios} | 12 | 60 |"
    assert f"| resnet8x4 | ONNX, int8 | 2.0 |  |  | {ratios} | 12 | 60 |" in table
