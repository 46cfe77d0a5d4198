from pathlib import Path

import pytest

from benchmarks import show
from benchmarks.harness.results import RESULTS, Figure, read, write
from benchmarks.show import SECTIONS, Section

pytestmark = pytest.mark.long


def one_figure(folder: Path) -> str:
    return str(read("speed", folder)["ratio"].value)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_page_says_what_the_results_say(section: Section):
    _, text, _ = section.split()
    assert text == section.text(RESULTS), "run `python -m benchmarks.show`"


def test_a_section_is_redone_and_the_rest_of_its_page_stays(tmp_path: Path):
    page = tmp_path / "page.md"
    expected = "before\n<!-- speed: python -m benchmarks.show -->\n2.5\n<!-- /speed -->\nafter\n"
    page.write_text(expected.replace("2.5", "old"), encoding="utf-8")
    write("speed", [Figure("ratio", 2.5, 2.0, 3.0, "x")], tmp_path)
    for _ in range(2):
        show.rewrite(Section(page, "speed", one_figure), tmp_path)
        assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("text", ["", "<!-- speed: python -m benchmarks.show -->\nno end"])
def test_a_page_without_the_markers_is_left_alone(tmp_path: Path, text: str):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"page\.md lacks <!-- speed"):
        show.rewrite(Section(page, "speed", one_figure), tmp_path)
    assert page.read_text(encoding="utf-8") == text
