import sys
from pathlib import Path

from benchmarks.datasets import __main__ as command
from benchmarks.datasets.runs import Outcome
from benchmarks.harness.results import read


def test_every_seed_of_the_chosen_sets_is_run_and_the_figures_are_written_after_each(
    tmp_path: Path, monkeypatch, capsys
):
    asked = []

    def run(path: Path, seed: int, minutes: float) -> Outcome:
        written = len(read("datasets", tmp_path).figures) if (tmp_path / "datasets.json").exists() else 0
        asked.append((path.name, seed, minutes, written > 0))
        return Outcome({"teacher": 84.0, "student": 84.0 + seed, "control": 80.0}, 100, 8, 8, "", True, [2, 6])

    monkeypatch.setattr(command, "run", run)
    words = ["--only", "fashion-500", "--seeds", "0", "2", "--minutes", "3", "--kept", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["datasets", *words, "--out", str(tmp_path)])
    command.main()
    assert asked == [("fashion-500", 0, 3.0, False), ("fashion-500", 2, 3.0, True)]
    assert read("datasets", tmp_path)["fashion-500/student"].value == 85.0
    assert "| fashion-500 | photographs of clothes, gray, 28 px | 1,000 + 9,000, 5,000 | 2 |" in capsys.readouterr().out

    for more, runs in ([], 0), (["--build"], 0), (["--again"], 2), (["--minutes", "4"], 2):
        asked.clear()
        monkeypatch.setattr(sys, "argv", ["datasets", *words, "--out", str(tmp_path), *more])
        command.main()
        assert len(asked) == runs
