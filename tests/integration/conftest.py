import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A tiny project with its models trained, before compress."""
    from tests.trained import make_trained

    return make_trained(tmp_path_factory.mktemp("trained") / "w")


@pytest.fixture(scope="session")
def finished(trained, tmp_path_factory) -> Path:
    """The project after compress and evaluate ran as processes."""
    from tests.trained import run_stages

    folder = tmp_path_factory.mktemp("finished") / "w"
    shutil.copytree(trained, folder)
    run_stages(folder)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """A copy of the trained project as the working folder."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder
