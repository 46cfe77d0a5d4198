from pathlib import Path

import pytest

from benchmarks.harness.results import RESULTS, Figure, read, write
from benchmarks.throughput.report import TABLE, plot, section


def test_a_row_has_median_rounds_and_whether_the_target_is_missed(tmp_path: Path):
    write("throughput", [Figure("store_over_bare", 0.92, 0.9, 0.95, "x")], tmp_path)
    write("pipeline", [Figure("unchanged_rerun_s", 9.0, 8.0, 15.5, "s")], tmp_path)
    text = section(tmp_path)
    assert "| 0.92 | 0.9 … 0.95 | at least 0.93: missed |\n" in text
    assert "| 9 s | 8 … 15.5 | at most 10 |\n" in text
    assert str(read("pipeline", tmp_path)) in text


@pytest.mark.parametrize(("name", "units"), [("throughput", {"x", "s", "epochs"}), ("pipeline", {"x", "s"})])
def test_nothing_is_measured_and_left_out_but_the_speed_and_memory_of_each_arm(name: str, units: set[str]):
    figures = read(name, RESULTS).figures
    assert {figure.name for figure in figures if figure.unit in units} <= TABLE.keys()
    assert {figure.unit for figure in figures} - units <= {"images/s", "MB"}


def test_the_plot_is_a_picture(tmp_path: Path):
    write("throughput", [Figure("images_per_s_store", 4000.0, 3900, 4100, "images/s")], tmp_path)
    plot(read("throughput", tmp_path), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
