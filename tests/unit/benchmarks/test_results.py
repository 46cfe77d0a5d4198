import json
import subprocess
from pathlib import Path

from benchmarks.results import ROOT, Figure, of_rounds, write


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
