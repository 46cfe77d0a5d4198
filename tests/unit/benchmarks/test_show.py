import json
from pathlib import Path

import pytest

from benchmarks import show
from benchmarks.results import Figure, write


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    figures = [
        Figure("store_over_bare", 0.95, 0.94, 0.96, "x"),
        Figure("images_per_s_store", 4000.0, 3900, 4100, "images/s"),
    ]
    write("throughput", figures, tmp_path)
    stages = [f"{stage}_10k" for stage in ("ingest", "validate", "label", "distill")]
    growth = [Figure(f"{stage}_{unit}", 5.0, 5.0, 5.0, unit) for stage in stages for unit in ("s", "peak_mb")]
    write("scale", growth, tmp_path)
    loads = [
        Figure("1 runs: asked", 12.345, 11.0, 14.0, "ms"),
        Figure("1 runs: rows", 870.0, 870.0, 870.0, "a run"),
        Figure("1,000 runs: asked", 1234.5, 1200.0, 1300.0, "ms"),
        Figure("2 versions: asked", 5.0, 5.0, 5.0, "ms"),
    ]
    write("servers", loads, tmp_path)
    write("remote", [Figure("in 10 files: push", 84.45, 84.45, 84.45, "s")], tmp_path)
    monkeypatch.setattr(show, "ROOT", tmp_path)
    monkeypatch.setattr(show, "RESULTS", tmp_path)
    monkeypatch.setattr(show, "README", tmp_path / "README.md")
    monkeypatch.setattr(show, "SCALING", tmp_path / "SCALING.md")
    monkeypatch.setattr(show, "PICTURE", tmp_path / "throughput.png")
    (tmp_path / "SCALING.md").write_text(f"on paper\n{show.BEGIN_LOADS}\nold\n{show.END_LOADS}\n", encoding="utf-8")
    (tmp_path / "README.md").write_text(f"before\n{show.BEGIN}\nold\n{show.END}\nafter\n", encoding="utf-8")
    return tmp_path


def test_table_and_plot_are_redone_and_the_rest_of_the_readme_stays(measured: Path):
    show.main()
    once = (measured / "README.md").read_text(encoding="utf-8")
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert "| 0.95 | 0.94 … 0.96 | at least 0.93 |" in once
    assert "| stage | 10,000 images |" in once
    assert "| `label` | 5 s, 5 MB |" in once
    assert json.loads((measured / "throughput.json").read_text(encoding="utf-8"))["machine"] in once
    assert (measured / "throughput.png").read_bytes().startswith(b"\x89PNG")
    show.main()
    assert (measured / "README.md").read_text(encoding="utf-8") == once


def test_what_was_measured_under_growing_loads_is_a_table_for_each_kind_of_load(measured: Path):
    show.main()
    text = (measured / "SCALING.md").read_text(encoding="utf-8")
    assert text.startswith("on paper\n")
    assert "old" not in text
    assert "| | 1 runs | 1,000 runs |\n" in text
    assert "| asked, ms | 12.3 (11 … 14) | 1,234 (1,200 … 1,300) |\n" in text
    assert "| rows, a run | 870 |  |\n" in text
    assert "| | 2 versions |\n| --- | ---: |\n| asked, ms | 5 |\n" in text
    assert "| push, s | 84.5 |\n" in text


@pytest.mark.parametrize(
    ("path", "begin", "end"),
    [(show.README, show.BEGIN, show.END), (show.SCALING, show.BEGIN_LOADS, show.END_LOADS)],
)
def test_there_is_a_place_for_the_tables(path: Path, begin: str, end: str):
    text = path.read_text(encoding="utf-8")
    assert text.index(begin) < text.index(end)
