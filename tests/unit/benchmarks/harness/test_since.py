import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import since
from benchmarks.harness.results import RESULTS, ROOT, Figure, read, write
from reflux.components.core.artifacts import read_json

# Where the text around says that the word is a commit: numbers of releases and example output are none.
CITED = re.compile(r"\b(?:at|before|into|by|or|named|is|(?:Runs:|,) \d+ at|commit|unknown,) \(?`?([0-9a-f]{7,40})\b")


pytestmark = pytest.mark.usefixtures("history")


def commits_of(file: Path) -> Iterator[str]:
    content = read_json(file)
    for part in (content, *content.get("runs", [])):
        yield from (part[key] for key in ("commit", "at_latest") if key in part)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_a_results_file_names_commits_of_the_history_or_says_that_it_knows_none(file: Path):
    named = [commit.removesuffix("+") for commit in commits_of(file)]
    assert named
    assert [commit for commit in named if commit != "unknown" and not since.is_known(commit)] == []
    assert "unknown" not in named[0] or since.is_known(named[1]), "since when the figures are known"


def test_pages_and_comments_cite_commits_of_the_history():
    names = subprocess.run(["git", "ls-files", "*.md", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    cited = {}
    for name in names.stdout.splitlines():
        if not name.startswith("tests/"):
            found = CITED.findall((ROOT / name).read_text(encoding="utf-8"))
            cited.update({commit: name for commit in found if re.search("[0-9]", commit)})
    assert len(cited) > 30, "the expression finds those that are there"
    assert {commit: name for commit, name in cited.items() if not since.is_known(commit)} == {}


def test_a_commit_that_was_made_up_is_not_known():
    assert not since.is_known("880fd4b98bec")
    assert CITED.findall("measured at 880fd4b98bec") == ["880fd4b98bec"]


def test_every_results_file_says_which_code_it_measures_and_all_of_it_is_there():
    assert {file.stem for file in RESULTS.glob("*.json")} - {"datasets_runs"} == set(since.MEASURES)
    paths = {path for parts in since.MEASURES.values() for part in parts for path in since.paths_of(part)}
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a rule in ``code/rule.py`` and one in ``code/rule.yaml``, both measured by ``speed``."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/rule.py").write_text('"""One standard error."""\nERRORS = 1  # of them\n', encoding="utf-8")
    (tmp_path / "code/rule.yaml").write_text("errors: 1  # of them\n", encoding="utf-8")
    (tmp_path / "other.py").write_text("", encoding="utf-8")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(since, "ROOT", tmp_path)
    monkeypatch.setitem(since.MEASURES, "speed", ("code",))
    since.forget()
    yield tmp_path
    since.forget()


@pytest.mark.parametrize(
    ("file", "text", "has_changed"),
    [
        ("code/rule.py", '"""One standard error."""\nERRORS = 2  # of them\n', True),
        ("code/rule.py", '"""So many standard\n\nerrors."""\n\nERRORS = 1\n', False),
        ("code/rule.yaml", "errors: 2  # of them\n", True),
        ("code/rule.yaml", "errors: 1  # standard errors\n", False),
        ("other.py", "ERRORS = 2\n", False),
    ],
)
def test_results_older_than_the_code_that_they_measure_say_so(checkout: Path, file: str, text: str, has_changed: bool):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    (checkout / file).write_text(text, encoding="utf-8")
    expected = " The code that was measured has changed since." if has_changed else ""
    assert since.sentence("speed", [head.stdout.strip() + "+"]) == expected
    assert since.changed("speed", ["unknown"]) == []


def test_results_of_an_unknown_commit_are_as_old_as_the_commit_that_brought_them(tmp_path: Path):
    path = write("promotion", [Figure("rate", 2.0, 1.0, 3.0, "%")], tmp_path)
    text = re.sub('"commit": "[^"]*"', '"commit": "unknown", "at_latest": "92e2c183fbfc"', path.read_text("utf-8"))
    path.write_text(text, encoding="utf-8")
    end = "commit unknown, 92e2c183fbfc at the latest. The code that was measured has changed since."
    assert str(read("promotion", tmp_path)).endswith(end)
