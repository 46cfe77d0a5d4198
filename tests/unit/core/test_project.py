"""Which folder is the project's root, and which pipelines it has."""

from pathlib import Path

import pytest

from reflux.components.core.project import instead, pipelines, root


@pytest.fixture
def project(tmp_path) -> Path:
    for folder in (".dvc", "pipelines/pets", "pipelines/.birds-partial", "pipelines/notes", "data/pets"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("pets", ".birds-partial"):
        (tmp_path / "pipelines" / name / "params.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "above"), [(".", "."), ("pipelines/pets", "../.."), ("pipelines", "."), ("data/pets", ".")]
)
def test_a_pipeline_is_two_folders_below_its_projects_root(project, monkeypatch, folder, above):
    assert root(project / folder) == project / folder / above
    monkeypatch.chdir(project / folder)
    assert root() == Path(above)


def test_a_project_in_a_folder_called_pipelines_is_its_own_root(project, monkeypatch):
    monkeypatch.chdir(project / "pipelines/pets")
    (project / "pipelines/pets/.dvc").mkdir()
    assert root() == Path()


def test_without_dvc_above_a_folder_belongs_to_no_project(project, monkeypatch):
    monkeypatch.chdir(project / "pipelines/pets")
    (project / ".dvc").rmdir()
    assert root() == Path()


@pytest.mark.parametrize("folder", [".", "pipelines/pets"])
def test_pipelines_are_folders_with_params(project, monkeypatch, folder):
    monkeypatch.chdir(project / folder)
    assert pipelines() == ["pets"]
    assert instead() == "choose a pipeline with --pipeline: pets"


def test_elsewhere_there_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pipelines() == []
    assert instead().startswith("run reflux in the project's root folder")
