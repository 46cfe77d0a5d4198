import json
import time
from pathlib import Path

import pytest

from reflux.components.core.runtime.lineage import git
from reflux.flows.repo import checkout


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """Where DVC notes which stages are running."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    path = Path(".dvc/tmp/rwlock")
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("torn", ["", '{"/a": {"wri'])
def test_a_table_of_running_stages_that_was_cut_short_is_removed(table, torn):
    table.write_text(torn)
    checkout.remove_torn_lock()
    assert not table.exists()


def test_a_whole_table_stays_and_none_is_fine(table):
    checkout.remove_torn_lock()
    table.write_text(json.dumps({"/a": {"write": {}}}))
    checkout.remove_torn_lock()
    assert table.is_file()


def test_a_checkout_is_told_from_a_plain_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert not checkout.in_git()
    git("init", "-q")
    assert checkout.in_git()
