"""One run on an image set: ``data add`` and ``run`` in a fresh copy of this checkout, and how it ended."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.checkout import accuracies, copy_checkout
from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.contract import shipped
from reflux.components.core.errors import EXIT_USER_ERROR

DEFAULT_MINUTES = 10.0
KEPT = "datasets_runs.json"
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
        gain_ci95: the ends of the interval that the run gives for its gain, from the test images, in points.
    """

    accuracy: Mapping[str, float]
    size_kb: float | None
    planned_min: float | None
    taken_min: float | None
    sentence: str
    ended_well: bool
    gain_ci95: Sequence[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """A finished run as the results keep it.

    Attributes:
        name: of the set.
        seed: of the run.
        minutes: that it was allowed.
        digest: of the set's files.
        counts: the set's labeled, unlabeled and test images.
        commit: of Reflux.
        outcome: how it ended.
    """

    name: str
    seed: int
    minutes: float
    digest: str
    counts: Mapping[str, int]
    commit: str
    outcome: Outcome

    @property
    def key(self) -> tuple[str, int, float, str]:
        """What a run is known by: it is measured once for these, at whichever commit."""
        return self.name, self.seed, self.minutes, self.digest


def read_runs(folder: Path) -> list[Run]:
    """The finished runs that are kept in a folder of results."""
    file = folder / KEPT
    kept = read_json(file)["runs"] if file.is_file() else []
    return [Run(**{**run, "outcome": Outcome(**run["outcome"])}) for run in kept]


def keep_run(run: Run, folder: Path) -> list[Run]:
    """Keep a finished run, in place of an earlier one, also of the set's images before; returns all that are kept."""
    others = [kept for kept in read_runs(folder) if kept.key[:-1] != run.key[:-1]]
    runs = sorted([run, *others], key=lambda kept: kept.key)
    write_json(folder / KEPT, {"runs": [asdict(kept) for kept in runs]})
    return runs


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
            sentence = _sentence(added).replace(str(path), path.name)  # results name no machine's folders
            return Outcome({}, None, planned, None, sentence, added.returncode == EXIT_USER_ERROR)
        began = time.monotonic()
        ran = _reflux(checkout, ["run"])
        taken = (time.monotonic() - began) / 60
        if ran.returncode != 0:
            return Outcome({}, None, planned, taken, _sentence(ran), ran.returncode == EXIT_USER_ERROR)
        return outcome_of(checkout, planned, taken)


def outcome_of(checkout: Path, planned: float | None, taken: float) -> Outcome:
    """What the files of a finished run say."""
    metrics = read_json(checkout / "artifacts/evaluate/metrics.json")
    decision = read_json(checkout / "artifacts/promote/decision.json")
    sentence = "" if decision["outcome"] == "promoted" else _why(decision)
    size_kb = shipped(metrics)["size_bytes"] / 1024
    interval = [100 * end for end in metrics["gain"]["ci95"]]
    return Outcome(accuracies(checkout), size_kb, planned, taken, sentence, True, interval)


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
    command = [sys.executable, "-m", "reflux.flows.cli", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="", flush=True)
    return done


def _sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The error that a command ended with, in its own words."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return (errors or done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix("Error: ")
