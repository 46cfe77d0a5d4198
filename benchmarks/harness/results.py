"""Figures, and the files that every benchmark keeps them in: ``benchmarks/results/<name>.json``."""

import json
import os
import platform
import statistics
import subprocess
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.harness import since
from reflux.components.core.artifacts import write_json

ROOT = since.ROOT
RESULTS = Path(__file__).parents[1] / "results"
PICTURES = ROOT / ".github/pictures"
PAGES = ROOT / "infra/docs/pages/results"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: as the page's table has it.
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

    @property
    def mean(self) -> str:
        """The mean over seeds as tables have it, with half its interval if they differ."""
        half = self.high - self.value
        return f"{self.value:.2f} ± {half:.2f}" if half else f"{self.value:.2f}"

    def __str__(self) -> str:
        return f"{self.name:50} {self.value:10.4g} [{self.low:.4g}, {self.high:.4g}] {self.unit}"


@dataclass(frozen=True)
class Result:
    """A results file.

    Attributes:
        name: of the benchmark.
        commit: that was measured; ``unknown`` if nothing tells.
        machine: in words.
        figures: in the order in which they were measured.
        notes: what no number says, by what it is about.
        at_latest: of an unknown commit, the one that brought the figures.
    """

    name: str
    commit: str
    machine: str
    figures: tuple[Figure, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    at_latest: str = ""

    def __getitem__(self, name: str) -> Figure:
        """Find a figure by its name."""
        return {figure.name: figure for figure in self.figures}[name]

    def __contains__(self, name: str) -> bool:
        return any(figure.name == name for figure in self.figures)

    @property
    def since(self) -> str:
        """A sentence if the code that these figures measure has changed since; see :mod:`benchmarks.harness.since`."""
        return since.sentence(self.name, [self.at_latest or self.commit])

    @property
    def measured_at(self) -> str:
        """The commit that was measured, in words."""
        latest = f", {self.at_latest} at the latest" if self.at_latest else ""
        return f"commit {self.commit}{latest}"

    def __str__(self) -> str:
        return f"`{self.name}.json`: {self.machine}; {self.measured_at}.{self.since}"


def of_rounds(name: str, values: Sequence[float], unit: str) -> Figure:
    """The median of several rounds, with the lowest and the highest round."""
    numbers = statistics.median(values), min(values), max(values)
    value, low, high = (float(f"{number:.4g}") for number in numbers)
    return Figure(name, value, low, high, unit)


def of_seeds(name: str, values: Sequence[float], unit: str) -> Figure:
    """The mean over several seeds, with Student's t interval (95 %); a single seed has none."""
    from scipy import stats  # not on a bare GPU machine

    mean, half = statistics.mean(values), 0.0
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    value, low, high = (round(number, 2) for number in (mean, mean - half, mean + half))
    return Figure(name, value, low, high, unit)


def argument_parser(description: str | None) -> ArgumentParser:
    """A parser of the command line, with ``--out``."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results file")
    return parser


def publish(name: str, figures: Iterable[Figure], folder: Path) -> None:
    """Print figures as they come, and write them to ``<folder>/<name>.json``, also after an interruption."""
    measured: list[Figure] = []
    try:
        for figure in figures:
            print(figure, flush=True)
            measured.append(figure)
    finally:
        if measured:
            print(f"\nWritten: {write(name, measured, folder)}")


def write(name: str, figures: Sequence[Figure], folder: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write ``<folder>/<name>.json``: commit, machine, figures, and notes if there are any."""
    path = folder / f"{name}.json"
    measured = {"commit": commit(), "machine": machine(), "figures": [asdict(figure) for figure in figures]}
    write_json(path, measured | ({"notes": dict(notes)} if notes else {}))
    return path


def read(name: str, folder: Path) -> Result:
    """Read ``<folder>/<name>.json``."""
    written = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return Result(
        name,
        written["commit"],
        written["machine"],
        tuple(Figure(**one) for one in written["figures"]),
        written.get("notes", {}),
        written.get("at_latest", ""),
    )


def commit() -> str:
    """The commit that was measured; ``+`` marks uncommitted changes, ``unknown`` a folder without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        # The results themselves are about to change, and so is what is made of them.
        results = [f":!{path}" for path in ("benchmarks/results", PAGES.relative_to(ROOT), "infra/SCALING.md")]
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
