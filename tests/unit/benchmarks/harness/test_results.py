import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.harness.results import ROOT, Figure, of_rounds, of_seeds, publish, read, write


def test_the_median_of_the_rounds_stands_between_the_lowest_and_the_highest():
    assert of_rounds("ratio", [3.0, 1.0, 2.0, 9.0, 2.5], "x") == Figure("ratio", 2.5, 1.0, 9.0, "x")


def test_results_name_the_commit_and_the_machine_but_no_place(tmp_path: Path):
    path = write("speed", [Figure("ratio", 2.0, 1.0, 3.0, "x")], tmp_path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert list(written) == ["commit", "machine", "figures"]
    assert written["figures"] == [{"name": "ratio", "value": 2.0, "low": 1.0, "high": 3.0, "unit": "x"}]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert head.startswith(written["commit"].rstrip("+"))
    assert "cores" in written["machine"]
    assert "torch" in written["machine"]
    assert "/" not in written["machine"]
    result = read("speed", tmp_path)
    assert str(result) == f"`speed.json`: {written['machine']}; commit {written['commit']}."
    assert result["ratio"] == Figure("ratio", 2.0, 1.0, 3.0, "x")
    assert "ratio" in result
    assert "other" not in result


def test_the_interval_of_seeds_is_students_and_a_single_seed_has_none():
    assert of_seeds("gain", [1.0, 2.0, 3.0], "points") == Figure("gain", 2.0, -0.48, 4.48, "points")
    assert of_seeds("gain", [1.234], "points") == Figure("gain", 1.23, 1.23, 1.23, "points")


def test_figures_are_written_also_when_the_benchmark_is_interrupted(tmp_path: Path):
    def measure():
        yield Figure("first", 1.0, 1.0, 1.0, "s")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish("speed", measure(), tmp_path)
    figures = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))["figures"]
    assert [figure["name"] for figure in figures] == ["first"]
