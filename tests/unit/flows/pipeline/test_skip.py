from pathlib import Path

import pytest

from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime import installed, lineage
from reflux.flows.pipeline import skip
from tests.workspaces import git, make_tiny_project


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = make_tiny_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    git(Path(), "init", "-q")
    git(Path(), "add", ".")
    git(Path(), "commit", "-qm", "one")
    return folder


def test_the_inputs_are_the_same_until_data_code_or_params_change(project, monkeypatch):
    first = skip.identity(load_params())
    assert first is not None
    Path("notes.md").write_text("nothing depends on this")
    assert skip.identity(load_params()) == first

    changed = skip.identity(override_params(["student.steps=41"]))
    assert changed not in (None, first)
    assert skip.identity(override_params(["student.steps=40"])) == first

    image = next(Path("data/shapes/train").rglob("*.png"))
    kept = image.read_bytes()
    image.unlink()
    assert skip.identity(load_params()) not in (None, first)
    image.write_bytes(kept)
    assert skip.identity(load_params()) == first

    extension = Path("extensions/losses/own.py")
    extension.parent.mkdir(parents=True)
    identities = {first}
    for text in ("# one\n", "# two\n"):
        extension.write_text(text)
        identities.add(skip.identity(load_params()))
    assert len(identities) == 3
    extension.unlink()
    assert skip.identity(load_params()) == first

    monkeypatch.setattr(lineage, "COMPONENTS", project / "components")
    assert skip.identity(load_params()) == first
    with Path("components/modalities/image/models/pixel_model.py").open("a") as code:
        code.write("\n")
    assert skip.identity(load_params()) not in (None, first)


def test_another_release_of_torch_is_another_input_unless_a_param_says_that_it_is_none(project, monkeypatch):
    identities = {True: set(), False: set()}
    for release in ("2.12.0+cpu", "2.13.0+cpu", "2.13.0+cu128"):
        monkeypatch.setattr(installed, "version", lambda name, release=release: release if name == "torch" else "1.0")
        for retrain, known in identities.items():
            known.add(skip.identity(override_params([f"run.retrain_on_upgrade={str(retrain).lower()}"])))
    assert {retrain: len(known) for retrain, known in identities.items()} == {True: 2, False: 1}


@pytest.mark.parametrize(
    ("weights", "known"), [("random", True), ("models:/teacher/3", True), ("models:/teacher@champion", False)]
)
def test_weights_whose_name_can_move_are_no_known_input(project, weights, known):
    params = override_params([f"pretrain.weights={weights}"])
    assert (skip.identity(params) is not None) is known


@pytest.mark.parametrize("assignment", ["pretrain.weights={}", "student.weights={}", "distill.teachers=[{}]"])
def test_weights_in_a_file_count_by_their_content(project, assignment):
    file = Path("kept.safetensors")
    file.write_bytes(b"one")
    params = override_params([assignment.format(file)])
    first = skip.identity(params)
    file.write_bytes(b"two")
    assert skip.identity(params) not in (None, first)
