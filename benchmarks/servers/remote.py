"""DVC's way to S3 and back: the same bytes in few and in many files.

    .venv/bin/python -m benchmarks.servers.remote  # 10 GB twice; 50 GB of disk, Postgres, and Reflux with .[stack]

It starts ``infra/local`` and takes its S3 server (SeaweedFS) for DVC's remote, on the same disk and cores: what is
measured is what DVC and such a server cost by themselves, without a network. ``add`` hashes the folder and links it
into the cache, ``push`` fills an empty bucket, ``push again`` finds that all is there, and ``pull`` fills an empty
cache and folder. Each is measured once; memory is the largest of the command's process.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness.processes import Usage, measured
from benchmarks.harness.results import Figure, argument_parser, of_rounds, publish
from benchmarks.servers.stack import local_stack
from reflux.flows.local.environment import QUIET

FILES = (10, 100_000)
_FILES_A_FOLDER = 1000
_BLOCK = 1_000_000


def fill(folder: Path, files: int, gigabytes: float) -> None:
    """Write files of equal size that nothing can compress."""
    draw = np.random.default_rng(files)
    for number in range(files):
        path = folder / str(number // _FILES_A_FOLDER) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        left = int(gigabytes * 1e9 / files)
        with path.open("wb") as file:
            while left > 0:
                left -= file.write(draw.bytes(min(left, _BLOCK)))


def dvc(project: Path, *arguments: str) -> Usage:
    """Run one of DVC's commands, and watch its resident memory."""
    return measured([sys.executable, "-m", "dvc", *arguments, "--quiet"], project, "VmHWM")


def there_and_back(project: Path, files: int, gigabytes: float) -> Iterator[Figure]:
    """Add, push, push again and pull one folder."""
    data = project / "data"
    fill(data, files, gigabytes)
    first = (data / "0" / "0").read_bytes()
    steps = {"add": ("add", "data"), "push": ("push",), "push again": ("push",), "pull": ("pull",)}
    for name, arguments in steps.items():
        if name == "pull":
            shutil.rmtree(data)
            shutil.rmtree(project / ".dvc" / "cache")
        usage = dvc(project, *arguments)
        values = {"": (usage.wall_s, "s"), ", CPU": (usage.cpu_s, "s"), ", memory": (usage.peak_kb / 1024, "MB")}
        for suffix, (value, unit) in values.items():
            yield of_rounds(f"{gigabytes:g} GB in {files:,} files: {name}{suffix}", [value], unit)
    if sum(1 for path in data.rglob("*") if path.is_file()) != files or (data / "0" / "0").read_bytes() != first:
        raise SystemExit("What came back is not what was pushed.")


def measure(gigabytes: float) -> Iterator[Figure]:
    """The figures of few and of many files, each in a project of its own."""
    with local_stack() as stack:
        for files in FILES:
            with tempfile.TemporaryDirectory() as folder:
                project = Path(folder)
                dvc(project, "init", "--no-scm")
                dvc(project, "config", "cache.type", "hardlink")
                address = f"s3://{stack.settings['REFLUX_DVC_BUCKET']}/{files}"
                dvc(project, "remote", "add", "--default", "stack", address)
                yield from there_and_back(project, files, gigabytes)


def main() -> None:
    """Measure, and write ``remote.json``."""
    parser = argument_parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=10)
    options = parser.parse_args()
    os.environ.update(QUIET)
    publish("remote", measure(options.gigabytes), options.out)


if __name__ == "__main__":
    main()
