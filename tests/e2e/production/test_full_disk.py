"""A disk that is full where DVC's cache is: one clear failure, and when there is space again the next run is fine."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import call, reflux

pytestmark = pytest.mark.long


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, too small for a student."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NO DISK OF ITS OWN: only root may mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_cache_is_one_clear_failure_and_nothing_is_corrupt(small_disk, tmp_path, tiny_project):
    project = tiny_project(tmp_path / "project")
    assert call(project, "dvc", "cache", "dir", "--local", str(small_disk / "cache")).returncode == 0
    failed = reflux(project, "run")
    output = failed.stdout + failed.stderr
    assert failed.returncode not in (0, 3), output
    assert "no space left on the disk: free some space and run again" in output
    assert "Traceback" not in output
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = reflux(project, "run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "is the new @champion" in again.stdout
    status = call(project, "dvc", "status").stdout.splitlines()
    changed = [line for line in status if not line.startswith("\t")]
    assert changed == ["installed:"]  # DVC looks at it at each run
    for file in (small_disk / "cache" / "files" / "md5").glob("??/[!.]*"):
        assert md5(file) == (file.parent.name + file.name).removesuffix(".dir"), file


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
