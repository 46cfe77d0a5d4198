import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.files import open_file, read_image, refuse_strange_files
from reflux.components.modalities.image.pixels import UnreadableImage


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "is a named pipe and no file"),
        (listening, "is a socket and no file"),
        (Path.mkdir, "is a folder and no file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device and no file"),
    ],
)
def test_what_is_no_file_is_never_opened(tmp_path: Path, make: Callable[[Path], object], kind: str) -> None:
    make(tmp_path / "p")
    with pytest.raises(UnreadableImage, match=kind):
        open_file(tmp_path / "p")
    with pytest.raises(UnreadableImage, match=kind):
        read_image(tmp_path / "p", 50)


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(30 * 2**30)
    with pytest.raises(UnreadableImage, match=r"has 32,212 MB, more than the 467 that an image of ingest.max_megapix"):
        read_image(tmp_path / "sparse.png", 50)
    (tmp_path / "small.png").write_bytes(b"x" * 1000)
    assert read_image(tmp_path / "small.png", 0.001) == b"x" * 1000


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "is a named pipe;"),
        (listening, "is a socket;"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link to /dev/zero;"),
        (lambda path: path.symlink_to("../../id_rsa"), r"is a link to \.\./\.\./id_rsa;"),
        (lambda path: path.symlink_to("../.."), r"is a link to \.\./\.\.;"),
    ],
)
@pytest.mark.parametrize("name", ["cats/p.png", ".hidden/p"])
def test_what_is_no_file_of_a_folder_is_found(tmp_path: Path, make: Callable[[Path], object], kind: str, name: str):
    folder = tmp_path / "pets"
    (folder / name).parent.mkdir(parents=True)
    (tmp_path / "id_rsa").write_text("secret")
    make(folder / name)
    with pytest.raises(UserError, match=f"pets is not made of files and folders of its own: .*{name} {kind}"):
        refuse_strange_files(folder)


def test_links_that_stay_are_a_folders_own_and_those_to_dvcs_cache(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "files" / "md5" / "0f" / "0123456789abcdef0123456789abcd"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x")
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "1.png").symlink_to(kept)
    (folder / "2.png").symlink_to("1.png")
    (folder / "up").symlink_to("../pets")
    (folder / "gone").symlink_to("nothing")
    (folder / "round").symlink_to("round")
    (tmp_path / "link").symlink_to("pets")
    refuse_strange_files(folder)
    refuse_strange_files(tmp_path / "link")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="out"):
        refuse_strange_files(folder)
