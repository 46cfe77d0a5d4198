"""``make locks``: the releases that are installed, below ``infra/locked``, with the hash of each of their files.

The releases are those of ``constraints.txt``. Of torch and what it alone brings to Linux only the image has one:
elsewhere it is the build for your GPU, or for none, that is installed. pip takes the hashes as constraints, so that
they are kept once.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKED = ROOT / "infra/locked"
EXTRAS = {"run": ("tune",), "dev": ("dev",), "image": ("stack", "kubernetes", "tracing", "tune")}
# pip takes hashes as constraints only since some release, so it comes first; setuptools builds what has no wheel.
TOOLS = {"tools": "pip\nsetuptools\n", "release": "build\ntwine\nsetuptools\n"}  # the second are the release workflow's
TORCHS = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
_NOTE = "# Made by `make locks` of pyproject.toml and constraints.txt.\n"
_COMPILE = (
    "pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --constraints constraints.txt"
)


def releases(*arguments: str, given: str | None = None) -> list[str]:
    """Return what uv resolves, a requirement each, with its hashes if asked for.

    Raises:
        CalledProcessError: it can't be resolved; uv has said why.
    """
    command = [str(Path(sys.executable).with_name("uv")), *_COMPILE.split(), *arguments]
    done = subprocess.run(command, cwd=ROOT, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return re.findall(r"^\S.*(?:\n +.*)*\n", done.stdout, re.MULTILINE)


def main() -> None:
    """Write all of them."""
    LOCKED.mkdir(exist_ok=True)
    locks = {name: releases("--generate-hashes", "-", given=text) for name, text in TOOLS.items()}
    locks["hashes"] = releases("--generate-hashes", "--extra", "dev", "pyproject.toml")
    for name, extras in EXTRAS.items():
        found = releases(*(option for extra in extras for option in ("--extra", extra)), "pyproject.toml")
        locks[name] = [each for each in found if name == "image" or not TORCHS.match(each)]
    for name, found in locks.items():
        (LOCKED / f"{name}.txt").write_text(_NOTE + "".join(found), encoding="utf-8")


if __name__ == "__main__":
    main()
