"""Datasets under a real DVC, with and without git."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import UserError
from components.core.params.file import load_params
from flows.commands.data import add
from flows.repo.checkout import prepare_dvc


def pictures(folder: Path, mode: str = "L", classes: tuple[str, ...] = ("cats", "dogs")) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(2):
            shape = (8, 8) if mode == "L" else (8, 8, 3)
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


def test_a_users_dataset_is_copied_versioned_and_pointed_at(checkout, tmp_path):
    before = Path("params.yaml").read_text().splitlines()
    message = add(pictures(tmp_path / "My pets!", "RGB"), None)
    params = load_params()
    assert params.ingest.source == "data/My-pets"
    assert params.ingest.channels == 3
    assert params.project.name == "My-pets"
    assert params.registry.model_name == "My-pets-student"
    changed = [
        old.split()[0]
        for old, new in zip(before, Path("params.yaml").read_text().splitlines(), strict=True)
        if old != new
    ]
    assert changed == ["name:", "source:", "channels:", "model_name:"], "every other line stays as its author wrote it"
    assert "md5" in Path("data/My-pets.dvc").read_text()
    assert len(list(Path("data/My-pets").rglob("*.png"))) == 4
    assert "4 images (color), 2 classes" in message
    assert "# All settings of the pipeline" in Path("params.yaml").read_text()


def test_gray_images_stay_gray_and_a_name_that_yaml_takes_for_a_number_stays_a_name(checkout, tmp_path):
    add(pictures(tmp_path / "pets"), "2024")
    assert load_params().ingest.channels == 1
    assert load_params().project.name == "2024"


def test_a_folder_that_is_in_data_already_is_taken_where_it_is(checkout):
    pictures(checkout / "data" / "pets")
    add(Path("data/pets"), None)
    assert Path("data/pets.dvc").is_file()
    assert load_params().ingest.source == "data/pets"


def test_what_git_versions_needs_no_dvc_file(checkout):
    pictures(checkout / "data" / "pets")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "data"], check=True)
    assert "git versions it already" in add(Path("data/pets"), None)
    assert not Path("data/pets.dvc").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda at: at, "does not exist"),
        (lambda at: (at.mkdir(), at)[1], "holds no images"),
        (lambda at: pictures(at, classes=("cats",)), "fewer than two classes"),
        (lambda at: (at.write_text("path,label"), at)[1], "is a file"),
    ],
)
def test_what_is_no_dataset_changes_nothing(checkout, tmp_path, make, sentence):
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=sentence):
        add(make(tmp_path / "pets"), None)
    assert Path("params.yaml").read_bytes() == before
    assert not list(Path().glob("data/**/*"))


def test_a_name_that_is_taken_is_refused(checkout, tmp_path):
    add(pictures(tmp_path / "pets"), None)
    with pytest.raises(UserError, match="--name"):
        add(pictures(tmp_path / "others"), "pets")
    assert len(list(Path("data/pets").rglob("*.png"))) == 4


def test_a_dataset_that_dvc_refuses_is_not_left_behind(checkout, tmp_path):
    prepare_dvc()
    Path(".dvcignore").write_text("data/\n")
    with pytest.raises(UserError, match="DVC can't take data/pets"):
        add(pictures(tmp_path / "pets"), None)
    assert not Path("data/pets").exists()
    assert load_params().project.name == "fashion-mnist"
