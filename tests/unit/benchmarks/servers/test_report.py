from pathlib import Path

from benchmarks.harness.results import Figure, write
from benchmarks.servers.report import section


def test_each_kind_of_load_has_a_table(tmp_path: Path):
    loads = [
        Figure("1 runs: asked", 12.345, 11.0, 14.0, "ms"),
        Figure("1 runs: rows", 870.0, 870.0, 870.0, "a run"),
        Figure("1,000 runs: asked", 1234.5, 1200.0, 1300.0, "ms"),
        Figure("2 versions: asked", 5.0, 5.0, 5.0, "ms"),
    ]
    write("servers", loads, tmp_path)
    write("remote", [Figure("in 10 files: push", 84.45, 84.45, 84.45, "s")], tmp_path)
    text = section(tmp_path)
    assert "| | 1 runs | 1,000 runs |\n" in text
    assert "| asked, ms | 12.3 (11 … 14) | 1,234 (1,200 … 1,300) |\n" in text
    assert "| rows, a run | 870 |  |\n" in text
    assert "| | 2 versions |\n| --- | ---: |\n| asked, ms | 5 |\n" in text
    assert "| push, s | 84.5 |\n" in text
