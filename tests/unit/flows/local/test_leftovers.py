import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reflux.flows.local.leftovers import checkpoints, remove, size, soft_labels

BEFORE = datetime.now(UTC) - timedelta(days=90)


@pytest.fixture
def write(tmp_path):
    """Writes a file some days ago; returns its folder."""

    def write(name: str, days_ago: float, content: str = "-" * 10) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        at = time.time() - days_ago * 24 * 3600
        os.utime(file, (at, at))
        return file.parent

    return write


def test_checkpoints_go_when_their_newest_file_is_old(tmp_path, write):
    old = write("checkpoints/finetune/a.pt", 100)
    write("checkpoints/distill/b.pt", 100)
    write("checkpoints/distill/b.json", 1)
    (tmp_path / "checkpoints/control").mkdir()
    nested = write("checkpoints/pretrain-before/tasks/c.pt", 91).parent
    assert checkpoints([tmp_path], BEFORE) == [old, nested]
    assert checkpoints([tmp_path / "elsewhere"], BEFORE) == []


def test_a_store_of_soft_labels_stays_while_its_key_is_known(tmp_path, write):
    kept, old = write(f"soft-labels/{'1' * 32}/0.npy", 100), write(f"soft-labels/{'2' * 32}/0.npy", 100)
    write(f"soft-labels/{'3' * 32}/0.npy", 1)
    assert soft_labels([tmp_path], {"1" * 64}, BEFORE) == [old]
    assert soft_labels([tmp_path], set(), BEFORE) == [kept, old]


def test_the_size_is_what_is_freed(tmp_path, write):
    folder = write("soft-labels/1/0.npy", 100)
    write("soft-labels/1/ids.npy", 100)
    assert size([folder]) == 20
    os.link(folder / "0.npy", tmp_path / "in DVC's cache")
    assert size([folder]) == 10


def test_a_removal_that_was_broken_off_is_finished(tmp_path, write, monkeypatch):
    old = write(f"soft-labels/{'2' * 32}/0.npy", 100)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove([old])
    assert not old.exists()
    write(f"soft-labels/.removed-{'2' * 32}/1.npy", 0)
    (left,) = soft_labels([tmp_path], {"2" * 64}, BEFORE)
    remove([left])
    assert list((tmp_path / "soft-labels").iterdir()) == []


def test_the_same_stage_may_have_been_interrupted_again(tmp_path, write):
    write("checkpoints/.removed-finetune/a.pt", 200)
    write("checkpoints/finetune/b.pt", 100)
    remove(checkpoints([tmp_path], BEFORE))
    assert list((tmp_path / "checkpoints").iterdir()) == []
