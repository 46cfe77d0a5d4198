"""The dataset of a run under a real DVC."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime import installed, lineage
from reflux.flows.repo.checkout import dvc, prepare_dvc
from reflux.flows.repo.dataset import fetch, track, version
from tests.workspaces import make_tiny_project

PETS = {"ingest.source": "data/pets"}
DVC = [sys.executable, "-m", "dvc"]


def test_a_missing_dataset_is_pulled_from_dvcs_remote(checkout, tmp_path):
    prepare_dvc()
    for name in ("cats", "dogs"):
        Path("data/pets", name).mkdir(parents=True)
        Path("data/pets", name, "0.png").write_text(name)
    assert track(Path("data/pets")).startswith("DVC versions it: commit data/pets.dvc")
    subprocess.run([*DVC, "remote", "add", "--default", "here", str(tmp_path / "remote")], check=True)
    subprocess.run([*DVC, "push"], check=True)
    shutil.rmtree("data/pets")
    shutil.rmtree(".dvc/cache")
    fetch(PETS)
    assert len(list(Path("data/pets").rglob("*.png"))) == 2
    shutil.rmtree("data/pets")
    shutil.rmtree(".dvc/cache")
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(UserError, match="is not here, and DVC can't pull it"):
        fetch(PETS)


def test_a_missing_or_empty_dataset_is_one_sentence(checkout):
    with pytest.raises(UserError, match="data/nothing does not exist"):
        fetch({"ingest.source": "data/nothing"})
    Path("data/empty/deep").mkdir(parents=True)
    with pytest.raises(UserError, match="data/empty is empty"):
        fetch({"ingest.source": "data/empty"})
    Path("data/empty/deep/0.png").write_text("a picture")
    with pytest.raises(UserError, match=r"ingest.source_domain = data/nothing does not exist"):
        fetch({"ingest.source": "data/empty", "ingest.source_domain": "data/nothing"})


def test_the_version_is_what_dvc_writes_into_its_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(make_tiny_project(tmp_path / "project"))
    prepare_dvc()
    installed.record(load_params(), ["ingest"])
    assert dvc("repro", "--quiet", "--single-item", "ingest")[0] == 0
    assert version("data/shapes") == lineage.data_md5()


def test_data_that_only_the_remote_has_has_the_version_of_its_pointer(tmp_path, monkeypatch):
    monkeypatch.chdir(make_tiny_project(tmp_path / "project"))
    prepare_dvc()
    track(Path("data/shapes"))
    here = version("data/shapes")
    assert here.endswith(".dir")
    Path("dvc.lock").write_text("stages:\n<<<<<<< HEAD\n  ingest: {}\n=======\n")
    with pytest.raises(UserError, match=r"^DVC refuses this project \(unable to read: 'dvc.lock'.*\): correct that"):
        version("data/shapes")
    Path("dvc.lock").unlink()
    ignored = Path(".dvcignore").read_bytes()
    Path(".dvcignore").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"^DVC refuses this project \(one of its files, such as \.dvcignore, is not"):
        version("data/shapes")
    with pytest.raises(UserError, match=r"^DVC refuses this project \(one of its files, such as \.dvcignore, is not"):
        prepare_dvc()
    Path(".dvcignore").write_bytes(ignored)
    shutil.rmtree("data/shapes")
    assert version("data/shapes") == here
