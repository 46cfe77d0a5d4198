import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(make_once) -> Path:
    """A tiny project with its models trained, before compress."""
    from tests.trained import make_trained

    return make_once("trained", make_trained)


@pytest.fixture(scope="session")
def finished(trained, make_once) -> Path:
    """The project after compress and evaluate ran as processes."""
    from tests.trained import run_stages

    def make(folder: Path) -> None:
        shutil.copytree(trained, folder)
        run_stages(folder)

    return make_once("finished", make)


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """A copy of the trained project as the working folder."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder
