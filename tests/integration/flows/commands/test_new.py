import contextlib
import errno
import re
import shutil
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from reflux.components.core.params.file import load_params
from reflux.flows.commands.new import new
from tests.workspaces import ROOT, git


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
        message = new(Path("flowers"))
    assert re.search(r"^Next: cd flowers && .*reflux.* run$", message, re.MULTILINE)
    return folder / "flowers"


def test_a_project_has_this_projects_own_files_under_its_name(project):
    for name in ("dvc.yaml", ".gitignore", "infra/prefect.yaml", "data/shoe.png", "data/fashion-mnist/train.parquet"):
        assert (project / name).read_bytes() == (ROOT / name).read_bytes()
    params, own = load_params(ROOT / "params.yaml"), load_params(project / "params.yaml")
    assert (own.project.name, own.registry.model_name) == ("flowers", "flowers-student")
    renamed = {"project": own.project, "registry": params.registry.model_copy(update={"model_name": "flowers-student"})}
    assert own == params.model_copy(update=renamed)
    installs = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert (installs["name"], installs["dependencies"]) == ("flowers", [f"reflux=={version('reflux')}"])


def test_it_is_a_git_repository_with_all_of_it_committed(project):
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "log", "--format=%s") == f"A project of Reflux {version('reflux')}"
    assert git(project, "branch", "--show-current") == "main"
    committed = git(project, "ls-files").splitlines()
    files = [file for file in project.rglob("*") if file.is_file() and ".git" not in file.relative_to(project).parts]
    assert sorted(committed) == sorted(str(file.relative_to(project)) for file in files)


def test_its_readme_names_files_that_are_there_and_its_workflow_is_one_that_github_takes(project):
    readme = (project / "README.md").read_text()
    assert readme.startswith("# flowers\n")
    named = re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE)
    added = ["dvc.lock", "pipelines/NAME/", "extensions/<kind>/*.py"]
    assert [name for name in named if not (project / name).exists()] == added, "by a run, and by the project's team"
    check = (project / ".github/workflows/check.yml").read_text()
    assert "pip install ." not in readme + check, "which PyPI would answer with another project's package"
    assert f"Reflux {version('reflux')}, a wheel" in readme
    workflow = YAML(typ="safe").load(check)
    assert list(Draft7Validator(get_builtin_schema("vendor.github-workflows")).iter_errors(workflow)) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["flowers"], "flowers is not empty: name a new folder."),
        (["flowers/params.yaml"], "params.yaml is a file: name a new folder."),
        (["my flowers"], "my flowers can't name a project: begin with a letter or digit"),
        (["others", "--from", "nowhere"], "nowhere does not exist: give the folder of your dataset."),
        (["deep/down/others", "--from", "nowhere"], "nowhere does not exist: give the folder of your dataset."),
    ],
)
def test_what_can_be_no_project_is_one_sentence_and_leaves_nothing(
    project, monkeypatch, call_reflux, arguments, sentence
):
    monkeypatch.chdir(project.parent)
    before = {*project.parent.iterdir(), *project.rglob("*")}
    code, _, err = call_reflux("new", *arguments)
    assert code == 2
    assert err.startswith("Error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert {*project.parent.iterdir(), *project.rglob("*")} == before


def test_an_empty_folder_becomes_a_project(tmp_path, call_reflux):
    (tmp_path / "empty").mkdir()
    assert call_reflux("new", str(tmp_path / "empty"))[0] == 0
    assert load_params(tmp_path / "empty/params.yaml").project.name == "empty"


def test_the_empty_folder_that_a_shell_works_in_becomes_a_project_and_stays_that_folder(
    tmp_path, monkeypatch, call_reflux
):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    code, out, _ = call_reflux("new", ".")
    assert code == 0
    assert "empty is a project of Reflux" in out
    assert "Next: cd" not in out
    assert Path.cwd() == folder, "a folder that was replaced would leave the shell in one that is gone"
    assert git(folder, "status", "--porcelain") == ""
    assert list(tmp_path.iterdir()) == [folder]


def test_an_empty_folder_is_empty_again_after_a_failure_in_the_middle_of_filling_it(tmp_path, monkeypatch, call_reflux):
    folder = tmp_path / "empty"
    folder.mkdir()
    move, moved = shutil.move, []

    def full(path: Path, target: Path) -> str:
        if len(moved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        moved.append(path)
        return move(path, target)

    monkeypatch.setattr(shutil, "move", full)
    assert call_reflux("new", str(folder))[0] != 0
    assert len(moved) == 2
    assert [*tmp_path.rglob("*")] == [folder]
