import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reflux.components.core.export import latency as latency_module
from reflux.components.core.export import timing
from reflux.components.core.export.latency import latency, side_by_side

pytestmark = pytest.mark.long


@pytest.fixture
def matrix_power(tmp_path):
    """Writes a network that multiplies a big matrix with itself, so many times."""

    def make(times: int):
        nodes = [helper.make_node("Cast", ["pixels"], ["x0"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("MatMul", [f"x{i}", "x0"], [f"x{i + 1}"]) for i in range(times)]
        nodes += [helper.make_node("Identity", [f"x{times}"], ["logits"])]
        ports = [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 1, 200, 200]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, 200, 200]),
        ]
        graph = helper.make_graph(nodes, "power", ports[:1], ports[1:])
        path = tmp_path / f"{times}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
        return path

    return make


def test_more_work_takes_longer(matrix_power):
    pixels = np.zeros((3, 1, 200, 200), np.uint8)
    little, much = (latency(matrix_power(times), pixels, 20) for times in (1, 40))
    assert 0 < little["latency_ms_p50"] <= little["latency_ms_p95"]
    assert much["latency_ms_p50"] > 3 * little["latency_ms_p50"]


@pytest.fixture
def seconds(monkeypatch):
    """Gives networks the seconds that each of their runs takes, by file, on a clock that nothing else moves."""
    files, now = {}, 0.0

    def network(path, threads):
        assert threads == 1
        durations = itertools.cycle(files[path.name])

        def run(_):
            nonlocal now
            now += next(durations)

        return SimpleNamespace(run=run)

    monkeypatch.setattr(latency_module, "load", network)
    clock = SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: now)
    for module in (latency_module, timing):
        monkeypatch.setattr(module, "time", clock)
    return files


def test_it_is_the_milliseconds_of_one_run(seconds):
    seconds["one.onnx"] = [0.002] * 9 + [0.007]
    measured = latency(Path("one.onnx"), np.zeros((3, 1, 2, 2), np.uint8), 100)
    assert measured == {"latency_ms_p50": pytest.approx(2), "latency_ms_p95": pytest.approx(7)}


def test_side_by_side_is_in_milliseconds_and_says_how_many_times_faster_the_first_is(seconds):
    seconds |= {"one.onnx": [0.002], "other.onnx": [0.006]}
    pixels = np.zeros((3, 1, 2, 2), np.uint8)
    comparison = side_by_side(Path("one.onnx"), Path("other.onnx"), pixels, pixels)
    assert (comparison.first_ms_p95, comparison.second_ms_p95) == (pytest.approx(2), pytest.approx(6))
    assert comparison.faster == pytest.approx(3)


@pytest.mark.parametrize("busy", [0, 2])
def test_a_file_is_not_faster_than_itself_however_busy_the_machine_is(matrix_power, busy):
    path, pixels = matrix_power(2), np.zeros((3, 1, 200, 200), np.uint8)
    others = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10_000))"]) for _ in range(busy)]
    try:
        for _ in range(2):
            comparison = side_by_side(path, path, pixels, pixels)
            assert comparison.faster < 1.1
            assert comparison.first_ms_p95 > 0
            assert comparison.second_ms_p95 > 0
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_the_faster_file_is_seen_whichever_comes_first(matrix_power):
    pixels = np.zeros((3, 1, 200, 200), np.uint8)
    quick, slow = matrix_power(1), matrix_power(10)
    comparison, swapped = side_by_side(quick, slow, pixels, pixels), side_by_side(slow, quick, pixels, pixels)
    assert comparison.faster > 2
    assert comparison.first_ms_p95 < comparison.second_ms_p95
    assert swapped.faster < 0.5
