"""What the benchmarks of transfer share: figures, tables, plots, and seeds that are added later."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.harness.results import argument_parser, read, write
from benchmarks.transfer import grid

PAIRS = (("full", "scratch"),)
RESULTS = {
    1: {0: {"scratch": 50.0, "full": 60.0}, 1: {"scratch": 54.0, "full": 62.0}},
    5: {0: {"scratch": 80.0}, 1: {"scratch": 80.5}},
}


def test_figures_are_means_differences_within_a_seed_and_each_seed_alone(tmp_path: Path):
    write("transfer", grid.figures_of(RESULTS, PAIRS), tmp_path)
    result = read("transfer", tmp_path)
    assert result["1 label a class, full"].value == 61.0
    difference = result["1 label a class, full - scratch"]
    assert (difference.value, difference.unit) == (9.0, "points")
    assert difference.high == pytest.approx(9 + 12.71, abs=0.01), "Student's t of one degree of freedom"
    assert "5 labels a class, full - scratch" not in result
    assert grid.results_of(result.figures) == RESULTS


def test_the_table_leaves_empty_what_was_not_measured(tmp_path: Path):
    write("transfer", grid.figures_of(RESULTS, PAIRS), tmp_path)
    lines = grid.by_labels(read("transfer", tmp_path), (1, 5), ["scratch", "full", "full - scratch"]).splitlines()
    assert lines == [
        "| | 1 label a class | 5 labels a class |",
        "| --- | ---: | ---: |",
        "| scratch | 52.0 ± 25.4 | 80.2 ± 3.2 |",
        "| full | 61.0 ± 12.7 |  |",
        "| full - scratch | +9.0 ± 12.7 |  |",
    ]


def test_the_plot_has_a_panel_for_each_title(tmp_path: Path):
    write("transfer", grid.figures_of(RESULTS, PAIRS), tmp_path)
    result, widths = read("transfer", tmp_path), []
    for panels in ({"one": {"alone": "scratch"}}, {"one": {"alone": "scratch"}, "two": {"alone": "full"}}):
        grid.plot(result, panels, (1, 5), tmp_path / "plot.png")
        widths.append(Image.open(tmp_path / "plot.png").width)
    assert widths[0] < widths[1]


def test_a_later_call_measures_what_the_file_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(
        folder: Path, seed: int, known: Mapping[int, grid.Accuracies], options: Namespace
    ) -> Iterator[tuple[int, grid.Accuracies]]:
        assert list(folder.iterdir()) == []
        assert options.threads == 1
        measured.append((seed, list(known)))
        if 1 not in known:
            yield 1, {"scratch": 50.0 + seed, "full": 60.0}
        if seed == 2:
            raise KeyboardInterrupt
        if 5 not in known:
            yield 5, {"scratch": 80.0 + seed}

    def measure(*seeds: str) -> None:
        words = ["transfer", "--threads", "1", "--out", str(tmp_path), *seeds]
        monkeypatch.setattr(sys, "argv", words)
        grid.measure("transfer", argument_parser("about"), range(2), run, PAIRS, lambda folder: "the table")

    measured: list[tuple[int, list[int]]] = []
    measure()
    assert "the table" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        measure("1", "2", "3")
    measure("3")
    assert measured == [(0, []), (1, []), (1, [1, 5]), (2, []), (3, [])]
    results = grid.results_of(read("transfer", tmp_path).figures)
    assert results[1] == {seed: {"scratch": 50.0 + seed, "full": 60.0} for seed in range(4)}
    assert results[5] == {seed: {"scratch": 80.0 + seed} for seed in (0, 1, 3)}
