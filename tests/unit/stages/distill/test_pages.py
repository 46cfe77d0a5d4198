"""Run the examples on the pages next to the code from top to bottom, as a reader would."""

import re
from pathlib import Path

import pytest

STAGES = Path(__file__).parents[4] / "components/stages"
PAGES = [*sorted((STAGES / "distill").glob("*.md"))]
PAGES += [STAGES / room / "README.md" for room in ("finetune", "pretrain")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_the_examples_hold(page: Path):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), scope)  # noqa: S102 - our own pages
    assert blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_what_a_page_links_to_is_there(page: Path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links)
