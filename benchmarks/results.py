"""How every benchmark writes down what it measured: ``benchmarks/results/<name>.json``."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from components.core.artifacts import write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what it is, as the README's table has it.
        value: the number.
        low: the lower end of its spread; the benchmark says which spread.
        high: the upper end.
        unit: such as images/s, s, MB; x for a ratio.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str


def of_rounds(name: str, values: Sequence[float], unit: str) -> Figure:
    """The median of several rounds, with the lowest and the highest round."""
    return Figure(name, *(float(f"{number:.4g}") for number in (median(values), min(values), max(values))), unit)


def write(name: str, figures: Sequence[Figure], folder: Path = RESULTS) -> Path:
    """Write ``<folder>/<name>.json``: commit, machine and figures."""
    path = folder / f"{name}.json"
    write_json(path, {"commit": commit(), "machine": machine(), "figures": [asdict(figure) for figure in figures]})
    return path


def commit() -> str:
    """The commit that was measured; ``+`` marks changes that are not committed, ``unknown`` no git checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        # The results themselves are about to change, and what is made of them.
        results = [f":!{path}" for path in ("benchmarks/results", "README.md", "infra/SCALING.md")]
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *results)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def machine() -> str:
    """The hardware and torch, in words."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    words = [f"{_processor()}, {cores} cores, {memory:.0f} GiB RAM", f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        words.insert(1, torch.cuda.get_device_name())
    return ", ".join(words)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    capable = "avx512_bf16" in facts.get("flags", "").split()
    return facts.get("model name", platform.machine()) + (" (AVX-512 BF16)" if capable else "")
