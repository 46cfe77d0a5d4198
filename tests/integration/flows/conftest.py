import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trees import living


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    marker = str(tmp_path / uuid.uuid4().hex)
    yield marker
    for process in living(marker):
        process.kill()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with the default params and nothing else, outside of git."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(Path(__file__).parents[3] / "params.yaml", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder
