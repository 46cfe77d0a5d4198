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
    monkeypatch.setattr(show, "ROOT", tmp_path)
    monkeypatch.setattr(show, "RESULTS", tmp_path)
    monkeypatch.setattr(show, "README", tmp_path / "README.md")
    monkeypatch.setattr(show, "PICTURE", tmp_path / "throughput.png")
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


def test_the_readme_has_a_place_for_the_table():
    readme = show.README.read_text(encoding="utf-8")
    assert readme.index(show.BEGIN) < readme.index(show.END)
