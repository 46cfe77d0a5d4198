from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from reflux.components.core.errors import UserError
from reflux.components.core.params import releases
from reflux.components.core.params.file import load_params
from tests.workspaces import ROOT

PYPROJECT = """\
[project]
name = "flowers"
dependencies = ["reflux[tune]==0.0.9", "polars>=1"]  # ours
"""


def test_the_project_of_a_newer_release_is_one_sentence_wherever_its_params_are_read(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("0.0.9", "99.1"))
    with pytest.raises(UserError) as refused:
        load_params(tmp_path / "params.yaml")
    assert str(refused.value) == (
        f"This project is of Reflux 99.1, and {version('reflux')} is installed: install the wheel of the release "
        "that pyproject.toml names."
    )


def test_a_pipeline_is_of_the_release_that_its_projects_root_names(tmp_path, monkeypatch):
    pets = tmp_path / "pipelines/pets"
    for folder in (tmp_path / ".dvc", pets):
        folder.mkdir(parents=True)
    (pets / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("0.0.9", "99.1"))
    for folder, path in ((tmp_path, Path("pipelines/pets/params.yaml")), (pets, Path("params.yaml"))):
        monkeypatch.chdir(folder)
        with pytest.raises(UserError, match=r"^This project is of Reflux 99\.1, and "):
            load_params(path)


@pytest.mark.parametrize(
    ("dependency", "release"),
    [("reflux==0.2.0", "0.2.0"), ("reflux[stack] >=0.1, <1", "0.1"), ("reflux", None), ("polars==3", None)],
)
def test_the_release_of_a_project_is_the_one_that_it_asks_for(tmp_path, dependency, release):
    path = tmp_path / "pyproject.toml"
    path.write_text(f'[project]\nname = "x"\ndependencies = ["{dependency}"]\n')
    assert releases.release_of(path) == (Version(release) if release else None)
    assert releases.release_of(Path("nowhere.toml")) is None


@pytest.mark.parametrize("text", ["[project", '[project]\ndependencies = ["reflux=0.1"]\n'])
def test_a_project_file_that_is_not_valid_is_one_sentence(tmp_path, text):
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"pyproject.toml is not valid \(.+\): correct it\.$") as refused:
        releases.release_of(path)
    assert len(str(refused.value).splitlines()) == 1


def test_the_pin_moves_and_all_else_stays():
    assert releases.with_release(PYPROJECT, "0.3.0") == PYPROJECT.replace("0.0.9", "0.3.0")
    ranged = PYPROJECT.replace("==0.0.9", ">=0.0.9,<1")
    assert releases.with_release(ranged, "0.3.0") == ranged
    with pytest.raises(UserError, match=r"asks for reflux.* and 2\.0 is installed: write reflux==2\.0\.$"):
        releases.with_release(ranged, "2.0")
