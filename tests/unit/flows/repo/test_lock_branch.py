import json
from pathlib import Path

import pytest

from reflux.components.core.runtime.journal import Journal
from reflux.flows.repo import lock_branch
from tests.workspaces import git

NAME = "retrain-20260102-030405-abc1234"


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A shallow clone of a bare repository, as a worker has it, after a run with other params."""
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(tmp_path, "clone", "-q", "origin.git", "first")
    for name in ("params.yaml", "code.py"):
        (tmp_path / "first" / name).write_text("one\n")
        git(tmp_path / "first", "add", ".")
        git(tmp_path / "first", "commit", "-qm", name)
    git(tmp_path / "first", "push", "-q", "origin", "HEAD:main")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path}/origin.git", "clone")
    folder = tmp_path / "clone"
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    (folder / "params.yaml").write_text("two\n")
    (folder / "code.py").write_text("someone is at work here\n")
    git(folder, "add", "code.py")
    (folder / "code.py").write_text("and goes on\n")
    monkeypatch.chdir(folder)
    return folder


def state(clone: Path) -> tuple[str, str, str]:
    return git(clone, "status", "--porcelain"), git(clone, "diff", "--cached"), git(clone, "rev-parse", "HEAD")


def records(journal: Journal) -> list[dict]:
    return [json.loads(line) for line in (journal.folder / "journal.jsonl").read_text().splitlines()]


def test_the_lock_comes_back_on_a_branch_and_the_checkout_is_left_alone(clone, tmp_path):
    before = state(clone)
    journal = Journal("p", NAME, {}, outbox=tmp_path / "outbox")
    assert lock_branch.bring_back(NAME, journal) == "dvc.lock is on the branch retrain/20260102-030405-abc1234."

    origin, branch = tmp_path / "origin.git", "retrain/20260102-030405-abc1234"
    assert git(origin, "show", f"{branch}:dvc.lock") == "schema: '2.0'"
    assert git(origin, "show", f"{branch}:params.yaml") == "two"
    assert git(origin, "show", f"{branch}:code.py") == "one", "only the lock and the params are committed"
    assert git(origin, "rev-parse", f"{branch}^") == git(origin, "rev-parse", "main")
    assert records(journal)[-1]["values"] == {"dvc.lock": branch}
    assert (
        git(clone, "status", "--porcelain"),
        git(clone, "diff", "--cached"),
        git(clone, "rev-parse", "HEAD"),
    ) == before
    assert git(clone, "branch", "--format=%(refname:short)") == "main"


def test_a_pipelines_lock_comes_back_on_a_branch_of_its_own(clone, tmp_path, monkeypatch):
    for name in (".dvc", "pipelines/pets"):
        (clone / name).mkdir(parents=True)
    monkeypatch.chdir(clone / "pipelines/pets")
    for name in ("params.yaml", "dvc.lock"):
        Path(name).write_text("of pets\n")
    branch = "retrain/pets-20260102-030405-abc1234"
    journal = Journal("p", NAME, {}, outbox=tmp_path / "outbox")
    assert lock_branch.bring_back(NAME, journal) == f"dvc.lock is on the branch {branch}."
    shown = git(tmp_path / "origin.git", "diff-tree", "-r", "--name-only", "main", branch)
    assert shown.split() == ["pipelines/pets/dvc.lock", "pipelines/pets/params.yaml"]


def test_where_no_branch_can_be_pushed_the_lock_comes_back_through_mlflow(clone, tmp_path):
    hook = tmp_path / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho this repository is read-only >&2\nexit 1\n")
    hook.chmod(0o755)
    journal = Journal("p", NAME, {}, outbox=tmp_path / "outbox")
    sentence = lock_branch.bring_back(NAME, journal)
    assert "artifact of the run in MLflow" in sentence
    assert "read-only" in sentence
    *_, artifact, tags = records(journal)
    assert (journal.folder / artifact["path"]).read_text() == "schema: '2.0'\n"
    assert tags["values"] == {"dvc.lock": "artifact"}
    assert git(tmp_path / "origin.git", "branch", "--format=%(refname:short)") == "main"


def test_a_lock_that_is_committed_already_makes_no_branch(clone, tmp_path):
    git(clone, "checkout", "-q", "-f", "HEAD")
    (clone / "dvc.lock").write_text("schema: '2.0'\n")
    git(clone, "add", "dvc.lock")
    git(clone, "commit", "-qm", "lock")
    journal = Journal("p", NAME, {}, outbox=tmp_path / "outbox")
    assert lock_branch.bring_back(NAME, journal) == "dvc.lock is as the commit of this run has it."
    assert git(tmp_path / "origin.git", "branch", "--format=%(refname:short)") == "main"
