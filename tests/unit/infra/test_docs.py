"""The pages of the documentation, without MkDocs: what is in the nav, where links lead, which commands are shown."""

import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path
from subprocess import check_output

import pytest
import typer
from ruamel.yaml import YAML

from infra.docs import links, reference
from reflux.components.core.params.file import check_overrides
from reflux.flows.cli import app
from tests.workspaces import ROOT

SITE = YAML(typ="rt").load((ROOT / "infra/docs/mkdocs.yml").read_text(encoding="utf-8"))
OWN = {str(page.relative_to(ROOT / links.PAGES)) for page in (ROOT / links.PAGES).rglob("*.md")}
LISTED = check_output(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, text=True).split()
PAGES = sorted(ROOT / name for name in LISTED)
COMMAND = typer.main.get_command(app)
UsageError = typer.BadParameter.__bases__[0]  # which Typer does not export


def leaves(nav) -> list[str]:
    """The pages of a nav, in their order."""
    if isinstance(nav, str):
        return [nav]
    return [page for child in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(child)]


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_of_the_nav_is_there_once_and_every_page_is_in_the_nav():
    pages = leaves(SITE["nav"])
    assert len(set(pages)) == len(pages)
    assert [page for page in pages if not (ROOT / links.source(page, OWN)).is_file()] == []
    assert OWN - set(pages) == set()
    sources = {ROOT / links.source(page, OWN) for page in pages}
    others = {str(page.relative_to(ROOT)) for page in set(PAGES) - sources}
    template = "infra/package/reflux/template/README.md"  # of projects that `reflux new` makes
    assert others == {"tests/data/mnist/README.md", ".github/pull_request_template.md", template}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path):
    text = page.read_text(encoding="utf-8")
    for path, anchor in links.links(text):
        target = ROOT / links.target(links.PurePosixPath(page.relative_to(ROOT)), path)
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target), f"{path}#{anchor}"
    own = re.findall(r"\]\(#([^)]+)\)", re.sub(r"`[^`\n]*`", "", text))
    assert set(own) <= anchors(page)


def shown(page: Path) -> list[str]:
    """The commands of Reflux on a page, in code blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(?:sh|console)?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    inline = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\\\n\s*", "", block) for block in blocks]
    commands = re.findall(r"^ *(reflux [^\n]+)", "\n".join(lines), re.MULTILINE)
    return commands + [" ".join(one.split()) for one in re.findall(r"`(reflux\s[^`]+)`", inline)]


def refused(command: str) -> str | None:
    """Why the command line would be refused; params are checked, too."""
    words = [{"VERSION": "1"}.get(word, word) for word in shlex.split(command, comments=True)[1:]]
    words = words[: next((i for i, word in enumerate(words) if word in ("-h", ">", "|", "&&")), len(words))]
    verb = COMMAND
    while isinstance(verb, typer.core.TyperGroup) and words:
        name, *words = words
        if (inner := verb.get_command(typer.Context(verb), name)) is None:
            return f"{name} is no command"
        verb = inner
    try:
        context = None if isinstance(verb, typer.core.TyperGroup) else verb.make_context(verb.name, list(words))
    except UsageError as error:  # prose names a command or an option without what it wants
        unfinished = ("Missing argument", "Missing option", "requires an argument")
        return None if any(words in error.message for words in unfinished) else error.message
    if context and (assignments := context.params.get("assignments")):
        check_overrides(assignments, ROOT / "params.yaml")
    return None


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_a_page_shows_would_be_accepted(page: Path):
    if page.name == "CHANGELOG.md":
        pytest.skip("it is of older releases")
    refusals = {command: reason for command in shown(page) if (reason := refused(command))}
    assert refusals == {}


def settings(page: Path) -> list[list[str]]:
    """The params that a page shows as YAML: the assignments of each block."""
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    documents = [YAML(typ="safe").load(block) for block in blocks]
    return [
        [
            f"{section}.{key}={json.dumps(value)}"
            for section, values in document.items()
            for key, value in values.items()
        ]
        for document in documents
        if document.keys() <= {"registry", "run", "ingest"}
    ]


def test_params_that_pages_show_as_yaml_are_accepted():
    shown_on = {page.name: settings(page) for page in PAGES if settings(page)}
    assert shown_on.keys() == {"gate.md", "gpu-pool.md"}
    for assignments in (each for blocks in shown_on.values() for each in blocks):
        assert check_overrides(assignments, ROOT / "params.yaml")


@pytest.mark.parametrize(
    "command", ["reflux trian", "reflux run --fast", "reflux data remove x", "reflux promote seven"]
)
def test_a_command_that_does_not_exist_is_found(command: str):
    assert refused(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_and_modules_that_a_page_names_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE)) <= targets
    modules = set(re.findall(r"python -m ((?:benchmarks|components|reflux)\.[\w.]*\w)", text))
    own = (
        {"reflux.components.stages.balance"} if page.name == "CONTRIBUTING.md" else set()
    )  # a stage that its walk adds
    assert {name for name in modules - own if importlib.util.find_spec(name) is None} == set()


def test_the_readme_is_what_a_newcomer_reads():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_param_has_a_reason_in_the_reference():
    rows = reference.rows((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert [row.name for row in rows if not row.reason] == []
    assert {row.name: row.value for row in rows}["student.steps"] == "1500"
    assert len({row.name for row in rows}) == len(rows) > 100


@pytest.mark.parametrize("name", reference.BLOCKS)
def test_each_block_of_the_reference_is_on_one_page_and_is_made(name: str):
    marker = f"<!-- generated: {name} -->"
    (page,) = [page for page in PAGES if marker in page.read_text(encoding="utf-8")]
    text = reference.filled(f"before\n{marker}\nafter", ROOT)
    assert text.startswith("before\n") and text.endswith("\nafter") and marker not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) > 4 or "## `reflux run`" in text
    assert page.is_relative_to(ROOT / links.PAGES / "reference")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](../../../../infra/README.md#schedules)", "[a](../infra/README.md#schedules)"),
        ("[a](gate.md)", "[a](gate.md)"),
        ("![a](../../../../.github/pictures/card.png)", "![a](../pictures/card.png)"),
        ("[`a`](../../../../params.yaml)", "[`a`](https://git.example.com/r/blob/main/params.yaml)"),
        ("`[a](gate.md)` [b](https://example.com) [c](#d)", "`[a](gate.md)` [b](https://example.com) [c](#d)"),
    ],
)
def test_a_link_leads_to_the_page_or_to_the_repository(link: str, expected: str):
    page = links.PAGES / "how-to/schedule.md"
    uris = ["how-to/gate.md", "infra/README.md"]
    assert links.rewritten(link, page, "how-to/schedule.md", uris, "https://git.example.com/r/") == expected


def test_a_link_to_code_is_text_where_the_repository_is_not_known():
    page = links.PAGES / "how-to/schedule.md"
    assert links.rewritten("[all](../../../../params.yaml)", page, "how-to/schedule.md", [], "") == "all"
