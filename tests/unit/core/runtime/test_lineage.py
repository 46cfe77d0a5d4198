import subprocess

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import lineage
from tests.workspaces import git


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "params.yaml").write_text("a: 1\n")
    return tmp_path


@pytest.fixture
def committed(folder):
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_the_commit_is_known_and_clean(committed):
    assert lineage.code() == lineage.Code(git(committed, "rev-parse", "HEAD"), False, None)


@pytest.mark.parametrize("change", ["params.yaml", "new.py"])
def test_a_changed_or_new_file_makes_the_code_dirty(committed, change):
    (committed / change).write_text("b: 2\n")
    assert lineage.code().dirty


def test_what_a_run_leaves_in_dvc_lock_does_not(committed):
    (committed / "dvc.lock").write_text("schema: '2.0'\n")
    assert not lineage.code().dirty


def test_in_a_pipeline_the_whole_projects_files_count(committed, monkeypatch):
    (committed / ".dvc").mkdir()
    for name in ("birds", "pets"):
        (committed / "pipelines" / name).mkdir(parents=True)
        (committed / "pipelines" / name / "params.yaml").touch()
    git(committed, "add", ".")
    git(committed, "commit", "-qm", "two")
    for name in ("birds", "pets"):
        (committed / "pipelines" / name / "dvc.lock").write_text("schema: '2.0'\n")
    monkeypatch.chdir(committed / "pipelines/pets")
    assert not lineage.code().dirty
    (committed / "extensions").mkdir()
    (committed / "extensions/mine.py").touch()
    assert lineage.code().dirty


def test_without_git_the_sentence_says_what_is_missing(folder):
    code = lineage.code()
    assert code.sha == "none"
    assert code.missing.startswith("Lineage without git (this folder is no git checkout): MLflow knows this run's data")


def test_without_a_commit_and_without_the_program(folder, monkeypatch):
    git(folder, "init", "-q")
    assert "no commit yet" in lineage.code().missing
    monkeypatch.setenv("PATH", str(folder))
    assert "git is not installed" in lineage.code().missing


def test_the_datas_hash_is_the_one_in_dvc_lock(folder):
    assert lineage.data_md5() is None
    (folder / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  ingest:\n    cmd: x\n    deps:\n    - path: data/shoes\n      md5: 0a1b.dir\n"
    )
    assert lineage.data_md5() == "0a1b.dir"


@pytest.mark.parametrize(
    "text", ["stages:\n<<<<<<< HEAD\n  ingest: {}\n=======\n", "", "- 1\n", "stages:\n  ingest:\n"]
)
def test_a_damaged_dvc_lock_is_one_sentence(folder, text):
    (folder / "dvc.lock").write_text(text)
    with pytest.raises(UserError, match=r"^dvc.lock is damaged: restore it with `git checkout dvc.lock`\.$"):
        lineage.data_md5()


def test_the_params_hash_follows_the_file(folder):
    before = lineage.params_sha256()
    (folder / "params.yaml").write_text("a: 2\n")
    assert lineage.params_sha256() != before


def test_git_returns_its_output_and_raises_its_refusal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(subprocess.CalledProcessError, match="rev-parse"):
        lineage.git("rev-parse", "HEAD")
    lineage.git("init", "-q")
    assert lineage.git("rev-parse", "--show-toplevel") == str(tmp_path)
    assert lineage.git("var", "GIT_AUTHOR_IDENT", environment={"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "b@c"})
