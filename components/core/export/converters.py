"""Packages that convert models to other formats, in folders of their own.

A converter may ask for releases that can't be installed next to those that Reflux needs. Its packages are therefore
pinned to the hashes of their files, installed on first use, without what they depend on and without building anything,
and are on the path of the process that converts alone.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from reflux.components.core.errors import UserError

HOME = Path(".reflux/converters")


def convert(label: str, packages: str, script: Path, arguments: Sequence[str]) -> None:
    """Run a script with a converter's packages, next to this Python's own.

    Args:
        label: of the format, for people.
        packages: a requirements file of pip, with the hashes of their files.
        script: to run, without this project on its path.
        arguments: its.

    Raises:
        UserError: the packages can't be installed.
        ValueError: the script failed; the first line is its last one, and the others are the rest of what it wrote.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder_of(label, packages).resolve())}
    command = [sys.executable, "-P", str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the converter ended with code {done.returncode}"]
        raise ValueError("\n".join([lines[-1], *lines[:-1]]))


def folder_of(label: str, packages: str) -> Path:
    """The folder with a converter's packages, which are installed if they have never been.

    Raises:
        UserError: the package index has none of them for this Python, or other files, or can't be reached.
    """
    key = hashlib.sha256("\n".join([sysconfig.get_platform(), sys.version, packages]).encode()).hexdigest()[:12]
    folder = HOME / f"{label.lower()}-{key}"
    HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            sys.stdout.write(f"Note: the converter for {label} is installed into {folder}, once.\n")
            with tempfile.TemporaryDirectory(dir=HOME) as temporary:
                installed = Path(temporary, "packages")
                _install(label, packages, installed)
                installed.rename(folder)
    return folder


def _install(label: str, packages: str, folder: Path) -> None:
    requirements = folder.with_name("requirements.txt")
    requirements.write_text(packages, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--no-input", "--no-deps", "--no-compile", "--progress-bar=off"]
    command = [*pip, "--require-hashes", "--only-binary=:all:", f"--target={folder}", f"--requirement={requirements}"]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            lines.append(line.strip())
            if lines[-1].startswith("Downloading"):
                sys.stdout.write(f"Note: {label}: {lines[-1]}\n")
                sys.stdout.flush()
    if process.returncode:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")] or lines[-1:]
        raise UserError(
            f"The converter for {label} can't be installed into {folder.parent.parent} ({''.join(errors[-1:])[:200]}): "
            "reach a package index (`pip config list` shows which) and run again, or choose another compress.ships."
        )
