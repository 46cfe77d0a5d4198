"""DVC's way to S3 and back: the same bytes in few and in many files.

    .venv/bin/python -m benchmarks.remote         # 10 GB twice; 50 GB of disk, Postgres, and Reflux with .[stack]

It starts ``infra/local`` and takes its S3 server (SeaweedFS) for DVC's remote, on the same disk and cores: what is
measured is what DVC and such a server take for themselves, without a network. ``add`` hashes the folder and links it
into the cache, ``push`` fills an empty bucket, ``push again`` finds that all is there, and ``pull`` fills an empty
cache and folder. Each is measured once; memory is the largest of the command's process.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np

from benchmarks.results import RESULTS, Figure, of_rounds, write
from benchmarks.servers.stack import local_stack
from benchmarks.throughput.setting import peak_mb
from flows.local.environment import QUIET

FILES = (10, 100_000)
_FILES_A_FOLDER = 1000
_BLOCK = 1_000_000
_SECONDS_BETWEEN_LOOKS = 0.1


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


def dvc(project: Path, *arguments: str) -> tuple[float, float, float]:
    """Run one of DVC's commands; returns its wall seconds, CPU seconds and largest resident memory in MB."""
    before, began, mb = getrusage(RUSAGE_CHILDREN), time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=project)
    while process.poll() is None:
        mb = peak_mb(process.pid) or mb
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    wall_s, after = time.monotonic() - began, getrusage(RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"dvc {' '.join(arguments)} failed.")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, mb


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
        wall_s, cpu_s, mb = dvc(project, *arguments)
        measured = {"": (wall_s, "s"), ", CPU": (cpu_s, "s"), ", memory": (mb, "MB")}
        for what, (value, unit) in measured.items():
            yield of_rounds(f"{gigabytes:g} GB in {files:,} files: {name}{what}", [value], unit)
    if sum(1 for path in data.rglob("*") if path.is_file()) != files or (data / "0" / "0").read_bytes() != first:
        raise SystemExit("What came back is not what was pushed.")


def main() -> None:
    """Measure, and write ``remote.json``."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--gigabytes", type=float, default=10)
    ask.add_argument("--out", type=Path, default=RESULTS)
    asked = ask.parse_args()
    os.environ.update(QUIET)
    figures = []
    with local_stack() as stack:
        for files in FILES:
            with tempfile.TemporaryDirectory() as folder:
                project = Path(folder)
                dvc(project, "init", "--no-scm")
                dvc(project, "config", "cache.type", "hardlink")
                address = f"s3://{stack.settings['REFLUX_DVC_BUCKET']}/{files}"
                dvc(project, "remote", "add", "--default", "stack", address)
                for figure in there_and_back(project, files, asked.gigabytes):
                    print(f"{figure.name:50} {figure.value:9.4g} {figure.unit}", flush=True)
                    figures.append(figure)
    print(f"Written: {write('remote', figures, asked.out)}")


if __name__ == "__main__":
    main()
