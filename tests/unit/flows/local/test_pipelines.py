"""Work in one of several pipelines, whose names keep their runs and versions apart."""

import shutil
from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params, override_params
from reflux.flows.local.pipelines import artifact_key, current, enter, refuse_shared_names, suffixed

PARAMS = Path(__file__).parents[4] / "params.yaml"


@pytest.fixture
def two(tmp_path, monkeypatch) -> Path:
    """A project with two pipelines, in its root."""
    (tmp_path / ".dvc").mkdir()
    for name in ("birds", "pets"):
        folder = tmp_path / "pipelines" / name
        folder.mkdir(parents=True)
        shutil.copy(PARAMS, folder)
        override_params([f"project.name={name}", f"registry.model_name={name}"], folder / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_working_folder_says_which_pipeline_it_is(two):
    enter("")
    assert (current(), suffixed("retrain"), Path.cwd()) == ("", "retrain", two)
    enter("pets")
    assert (current(), suffixed("retrain"), Path.cwd()) == ("pets", "retrain-pets", two / "pipelines/pets")
    enter("birds")
    assert (current(), Path.cwd()) == ("birds", two / "pipelines/birds")


def test_prefect_takes_the_key_of_any_pipelines_artifact(two):
    assert artifact_key("drift") == "drift"
    Path("pipelines/pets").rename("pipelines/Pets_2")
    enter("Pets_2")
    assert artifact_key("drift") == "drift-pets-2"


def test_a_wrong_name_is_one_sentence_with_those_that_there_are(two):
    with pytest.raises(UserError, match=r"^No pipeline is called pet: those of this project are birds, pets; .*\.$"):
        enter("pet")
    shutil.rmtree("pipelines")
    with pytest.raises(UserError, match="this project has none below its root; `reflux data add PATH --pipeline pets`"):
        enter("pets")


@pytest.mark.parametrize("name", ["project.name", "registry.model_name"])
def test_two_pipelines_with_one_name_are_refused(two, name):
    enter("pets")
    refuse_shared_names(load_params())
    params = override_params([f"{name}=birds"])
    with pytest.raises(UserError, match=f"pipelines/birds/params.yaml has {name} = birds, too"):
        refuse_shared_names(params)
    shutil.copy("params.yaml", two)
    (two / "pipelines/birds/params.yaml").write_text("seed: many")
    with pytest.raises(UserError, match=r"^params.yaml has project.name = \w+, too"):
        refuse_shared_names(params)
