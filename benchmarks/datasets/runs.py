"""One run on an image set: ``data add`` and ``run`` in a fresh copy of this checkout, and how it ended."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkout import accuracies, code_digest, copy_checkout
from benchmarks.results import ROOT
from components.core.artifacts import read_json, write_json
from components.core.errors import EXIT_USER_ERROR

DEFAULT_MINUTES = 10.0
_PLANNED = re.compile(r"(?:(\d+) h )?(?:(\d+) min)?(?: ?(\d+) s)? of [\d.]+ min")
_SEED = re.compile(r"^seed: \d+", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        accuracy: of teacher, student and control on the test split, in percent; empty if the run was stopped.
        size_kb: of the file that ships, in KB of 1,024 bytes.
        planned_min: minutes that ``data add`` foresaw for ``run``; None if it said nothing.
        taken_min: minutes that ``run`` took.
        sentence: why there is no champion; empty if there is one.
        ended_well: in a champion or one sentence, and not in an error of the program.
    """

    accuracy: Mapping[str, float]
    size_kb: float | None
    planned_min: float | None
    taken_min: float | None
    sentence: str
    ended_well: bool


def kept_run(path: Path, digest: str, seed: int, minutes: float, kept: Path) -> Outcome:
    """The outcome of a run that is kept for this set, seed and code, or else of a new one.

    Args:
        path: the set's folder.
        digest: of its files.
        seed: of the run.
        minutes: that it may take.
        kept: the folder of finished runs.
    """
    code = code_digest(*(ROOT / part for part in ("components", "flows", "params.yaml", "dvc.yaml")))
    file = kept / f"{path.name}-{seed}-{minutes:g}min-{digest}-{code}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(run(path, seed, minutes)))
    return Outcome(**read_json(file))


def run(path: Path, seed: int, minutes: float) -> Outcome:
    """Add a set and run the pipeline on it, as a user would who only knows the two commands."""
    with tempfile.TemporaryDirectory() as scratch:
        checkout = copy_checkout(Path(scratch))
        params = checkout / "params.yaml"
        params.write_text(_SEED.sub(f"seed: {seed}", params.read_text(encoding="utf-8")), encoding="utf-8")
        allowed = [] if minutes == DEFAULT_MINUTES else ["--minutes", f"{minutes:g}"]
        added = _reflux(checkout, ["data", "add", str(path), *allowed])
        planned = planned_minutes(added.stdout)
        if added.returncode != 0:
            return Outcome({}, None, planned, None, _sentence(added), added.returncode == EXIT_USER_ERROR)
        began = time.monotonic()
        ran = _reflux(checkout, ["run"])
        taken = (time.monotonic() - began) / 60
        if ran.returncode != 0:
            return Outcome({}, None, planned, taken, _sentence(ran), ran.returncode == EXIT_USER_ERROR)
        return outcome_of(checkout, planned, taken)


def outcome_of(checkout: Path, planned: float | None, taken: float) -> Outcome:
    """What the files of a finished run say."""
    shipped = read_json(checkout / "artifacts/evaluate/metrics.json")["shipped"]["onnx"]
    decision = read_json(checkout / "artifacts/promote/decision.json")
    sentence = "" if decision["outcome"] == "promoted" else _why(decision)
    return Outcome(accuracies(checkout), shipped["size_bytes"] / 1024, planned, taken, sentence, True)


def planned_minutes(printed: str) -> float | None:
    """The minutes in what ``data add`` prints, such as ``5 min 03 s of 10 min``; None if there are none."""
    found = _PLANNED.search(printed)
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 60 * hours + minutes + seconds / 60


def _why(decision: Mapping[str, Any]) -> str:
    missed = [reason["sentence"] for reason in decision["reasons"] if not reason["passed"]]
    return " ".join(missed) or str(decision["outcome"])


def _reflux(checkout: Path, words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """A command in a checkout; what it prints is shown, and its error kept."""
    # A wide screen, so that no line of the plan is broken.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(checkout.parent), "COLUMNS": "250"}
    command = [sys.executable, "-m", "flows.cli", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="", flush=True)
    return done


def _sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The error that a command ended with, in its own words."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return (errors or done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix("Error: ")
