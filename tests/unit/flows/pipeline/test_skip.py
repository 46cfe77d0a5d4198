import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.params.file import load_params, override_params
from components.core.runtime import lineage
from flows.dvc import dataset
from flows.dvc.checkout import prepare_dvc
from flows.local.environment import QUIET
from flows.pipeline import skip
from tests.workspaces import make_tiny_project


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def dvc(*arguments: str) -> None:
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, env={**os.environ, **QUIET, "PATH": here})


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = make_tiny_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    return folder


def test_the_inputs_are_the_same_until_data_code_or_params_change(project):
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

    with Path("components/core/models/pixel_model.py").open("a") as code:
        code.write("\n")
    assert skip.identity(load_params()) is None, "code that no commit has can't be named"
    git("commit", "-qam", "two")
    assert skip.identity(load_params()) not in (None, first)


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


def test_the_datas_version_is_what_dvc_writes_into_its_lock(project):
    prepare_dvc()
    dvc("repro", "--quiet", "--single-item", "ingest")
    assert dataset.version("data/shapes") == lineage.data_md5()


def test_data_that_only_the_remote_holds_has_the_version_of_its_pointer(project):
    prepare_dvc()
    git("rm", "-rq", "--cached", "data/shapes")
    dvc("add", "--quiet", "data/shapes")
    here = dataset.version("data/shapes")
    assert here.endswith(".dir")
    subprocess.run(["rm", "-r", "data/shapes"], check=True)
    assert dataset.version("data/shapes") == here
