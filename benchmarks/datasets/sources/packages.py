"""Packages that carry images: fetched once by the system's own client, which checks their hashes, and unpacked."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def debian(packages: Mapping[str, str], cache: Path) -> Path:
    """The files of packages of Debian 13 (names and versions), as they would be under ``/``; installs nothing.

    Raises:
        SystemExit: apt can't bring one.
    """
    wanted = [f"{name}={version}" for name, version in packages.items()]

    def unpack(scratch: Path, folder: Path) -> None:
        _run(["apt-get", "download", "-q", *wanted], scratch, f"Debian's {', '.join(packages)}")
        for archive in sorted(scratch.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(folder)], scratch, archive.name)

    key = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:8]
    return _kept(cache / f"{next(iter(packages))}-{key}", unpack)


def npm(name: str, version: str, cache: Path) -> Path:
    """The files of a package of npm; runs nothing of it.

    Raises:
        SystemExit: npm can't bring it.
    """

    def unpack(scratch: Path, folder: Path) -> None:
        _run(["npm", "pack", "--silent", f"{name}@{version}"], scratch, f"npm's package {name} {version}")
        (archive,) = scratch.glob("*.tgz")
        with tarfile.open(archive) as members:
            members.extractall(folder, filter="data")

    return _kept(cache / f"{name.replace('/', '-')}-{version}", unpack) / "package"


def _kept(folder: Path, unpack: Callable[[Path, Path], None]) -> Path:
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            whole = Path(scratch) / "files"
            unpack(Path(scratch), whole)
            whole.rename(folder)
    return folder


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        why = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        failed = done.returncode != 0
    except OSError as error:
        why, failed = [str(error)], True
    if failed:
        sys.exit(f"Error: {what} is not to be had: {' '.join(why) or command[0]}. See benchmarks/README.md.")
