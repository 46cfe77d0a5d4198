import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reflux.components.core.data.shards import UNLABELED, Shard, decoded, join, open_shard, some_labeled
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.encoded import EncodedImages, write_encoding
from reflux.components.modalities.image.pixels import decode
from tests.workspaces import PACKAGE, ROOT


def make_split(folder: Path, count: int = 12, size: int = 8, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    kinds = ("PNG", "JPEG", "WEBP", "BMP")
    files = []
    for index in range(count):
        file = io.BytesIO()
        picture = rng.integers(0, 256, (9 + index, 20 - index, 3), dtype=np.uint8)
        Image.fromarray(picture).save(file, kinds[index % 4])
        files.append(file.getvalue())
    folder.mkdir()
    (folder / "images.bin").write_bytes(b"".join(files))
    write_encoding(folder, np.cumsum([len(file) for file in files]), size, 3)
    np.save(folder / "labels.npy", np.zeros(count, np.int64))
    np.save(folder / "ids.npy", np.arange(count, dtype=np.uint64))
    return files


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_rows_are_the_pixels_that_decoding_the_files_gives(tmp_path: Path, workers: int) -> None:
    files = make_split(tmp_path / "split")
    images = open_shard(tmp_path / "split", workers).images
    expected = np.stack([decode(file, 3, 8, 1).pixels for file in files])
    assert images.shape == expected.shape
    for index in (slice(None), slice(2, 9), slice(9, 100), slice(3, 3), np.array([5, 0, 5]), np.array([], np.int64)):
        assert np.array_equal(images[index], expected[index])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_is_asked_for_several_times_is_decoded_once(tmp_path: Path, monkeypatch, workers: int) -> None:
    make_split(tmp_path / "split")
    images, reads = open_shard(tmp_path / "split", workers).images, []
    expected = images[:]
    read = EncodedImages.__getitem__

    def counted(self: EncodedImages, index: np.ndarray) -> np.ndarray:
        reads.append(np.array(index).tolist())
        return read(self, index)

    monkeypatch.setattr(EncodedImages, "__getitem__", counted)
    rows = np.array([7, 7, 2, 9, 2, 7])
    assert np.array_equal(images[rows], expected[rows])
    assert reads == [rows.tolist(), [2, 7, 9]]


def test_splits_are_joined_whatever_form_each_has(tmp_path: Path) -> None:
    files = make_split(tmp_path / "split")
    encoded = open_shard(tmp_path / "split")
    plain = Shard(encoded.images[:], encoded.labels, encoded.ids)
    assert np.array_equal(join(encoded, plain).images[np.array([1, 13, 2])], plain.images[[1, 1, 2]])
    assert len(join(encoded, plain)) == 2 * len(files)
    # Images that must be decoded are fetched while the network trains, however few they are.
    assert decoded(join(plain, plain).images)
    assert not decoded(join(encoded, plain).images)
    assert not decoded(join(plain, encoded).images)


def test_a_split_without_images_is_none(tmp_path: Path) -> None:
    make_split(tmp_path / "split", count=0)
    assert open_shard(tmp_path / "split").images[:].shape == (0, 8, 8, 3)


def test_a_damaged_split_is_a_sentence(tmp_path: Path) -> None:
    files = make_split(tmp_path / "split")
    file = tmp_path / "split" / "images.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"split is not a readable image shard .*run `reflux run` to ingest again"):
        open_shard(tmp_path / "split")
    file.write_bytes(whole[: len(files[0])] + bytes(len(whole) - len(files[0])))
    for workers in (0, 2):
        with pytest.raises(
            UserError, match=r"Image 3 of .*split is not a PNG, JPEG, WebP, BMP, TIFF or GIF image: delete"
        ):
            open_shard(tmp_path / "split", workers).images[np.array([0, 3])]


READER = """
import sys
from pathlib import Path
from reflux.components.core.data.shards import open_shard

if __name__ == "__main__":
    images = open_shard(Path(sys.argv[1]), 2).images
    while True:
        images[:]
        print("read", flush=True)
"""


def workers_of(pid: int) -> list[int]:
    """The processes that a process has started, without multiprocessing's own tracker of resources."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and "spawn_main" in command:
            pids.append(int(entry.name))
    return pids


def gone(pids: list[int], within_s: float = 10) -> bool:
    ends = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def reader(tmp_path: Path):
    """A process that reads with two workers, by their ids."""
    make_split(tmp_path / "split")
    (tmp_path / "reader.py").write_text(READER)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "reader.py"), str(tmp_path / "split")],
        env=os.environ | {"PYTHONPATH": str(ROOT / PACKAGE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "read\n"
    workers = workers_of(process.pid)
    assert len(workers) == 2
    yield process, workers
    process.kill()
    process.communicate()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@needs_proc
@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_workers_end_with_the_process_that_reads(reader, how: str) -> None:
    process, workers = reader
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    process.communicate(timeout=120)
    assert gone(workers)


@needs_proc
def test_a_worker_that_dies_is_a_sentence_and_takes_the_others_along(reader) -> None:
    process, workers = reader
    os.kill(workers[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert "A process that decodes images was killed, perhaps for lack of memory: lower run.workers" in stderr
    assert process.returncode == 1
    assert gone(workers)


def test_some_labelled_images_come_from_all_over_a_shard_and_never_without_their_label():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    shard = Shard(images, np.where(np.arange(20) % 4, UNLABELED, np.arange(20)), np.arange(20, dtype=np.uint64))
    few = some_labeled(shard, 3)
    assert few.labels.tolist() == few.ids.tolist() == few.images.ravel().tolist() == [0, 8, 16]
    assert some_labeled(shard, 5).labels.tolist() == [0, 4, 8, 12, 16]
    assert some_labeled(shard, 100).labels.tolist() == [0, 4, 8, 12, 16]
