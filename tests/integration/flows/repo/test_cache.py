"""``dvc gc`` of a real repository: the data of every registered version stays, wherever else it is known or not."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.flows.local.environment import QUIET
from reflux.flows.repo import cache
from reflux.flows.repo.checkout import prepare_dvc
from tests.workspaces import git

BEFORE = datetime.now(UTC) - timedelta(days=90)
OBJECTS = Path(".dvc/cache/files/md5")


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    git(folder, "init", "-q", "-b", "main")
    prepare_dvc()
    return folder


def add(content: str) -> str:
    """Put a dataset of this content, in two files, under DVC; returns its hash."""
    data = Path("data/shoes")
    data.mkdir(parents=True, exist_ok=True)
    (data / "one.txt").write_text(content)
    (data / "two.txt").write_text(f"{content}, too")
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(data)]
    subprocess.run(command, check=True, env=os.environ | QUIET)
    return str(YAML(typ="safe").load(Path("data/shoes.dvc").read_text())["outs"][0]["md5"])


def commit(days_ago: float) -> str:
    """Commit the pointer as of some days ago; returns the commit."""
    at = f"{time.time() - days_ago * 24 * 3600:.0f} +0000"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", at)
        git(Path(), "add", ".")
        git(Path(), "commit", "-qm", f"{days_ago} days ago")
    return git(Path(), "rev-parse", "HEAD")


def age(days: float) -> None:
    """Make all that is in the cache look as old."""
    at = time.time() - days * 24 * 3600
    for file in OBJECTS.rglob("*"):
        os.utime(file, (at, at))


def contents() -> set[str]:
    """What the files of the cache hold, without the lists of folders."""
    return {file.read_text() for file in OBJECTS.rglob("*") if file.is_file() and file.suffix != ".dir"}


def both(*datasets: str) -> set[str]:
    return {text for name in datasets for text in (name, f"{name}, too")}


def test_data_of_versions_branches_tags_and_the_last_months_stays_and_the_rest_goes(repository):
    add("nobody's")
    commit(200)
    add("a version's commit")
    registered = commit(190)
    data = add("a version's, never committed")
    add("a tag's")
    commit(180)
    git(repository, "tag", "release")
    git(repository, "checkout", "-q", "-b", "other")
    add("a branch's")
    commit(170)
    git(repository, "checkout", "-q", "main")
    add("a recent commit's")
    commit(10)
    age(100)
    add("written lately")
    add("the workspace's")
    everything = contents()
    unknown = "f" * 32

    gone = cache.unused({data, f"{unknown}.dir"}, {registered, "e" * 40, "none"}, BEFORE)
    assert len(gone) == 3, "two files and the list of them"
    assert contents() == everything
    cache.collect({data, f"{unknown}.dir"}, {registered, "e" * 40, "none"}, BEFORE)
    assert everything - contents() == both("nobody's")
    assert not any(path.exists() for path in gone)
    assert cache.unused({data}, {registered}, BEFORE) == []

    gone = cache.unused(set(), set(), BEFORE)
    assert len(gone) == 6, "without the versions, what only they refer to can go"


def test_without_git_the_workspace_and_the_versions_are_all_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    prepare_dvc()
    data = add("a version's")
    add("nobody's")
    age(100)
    add("the workspace's")
    cache.collect({data}, set(), BEFORE)
    assert contents() == both("a version's", "the workspace's")


def test_a_cache_that_others_may_use_is_left_alone(repository, tmp_path):
    assert cache.shared() is None
    Path(".dvc/config").write_text(f"{Path('.dvc/config').read_text()}[cache]\n    dir = {tmp_path}/shared\n")
    add("nobody's")
    add("the workspace's")
    assert cache.shared() == tmp_path / "shared"
    assert cache.unused(set(), set(), datetime.now(UTC) + timedelta(days=1)) == []


def test_where_a_state_can_not_be_read_nothing_is_removed(repository):
    add("nobody's")
    age(100)
    add("the workspace's")
    Path("data/shoes.dvc").write_text("outs: [\n")
    before = contents()
    for act in (cache.unused, cache.collect):
        with pytest.raises(UserError, match=r"DVC can't tell what its cache is needed for .*shoes\.dvc"):
            act(set(), set(), BEFORE)
    assert contents() == before
