"""Copies of this checkout, in which a benchmark runs the whole pipeline."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.harness.results import ROOT
from reflux.components.core.contract import shipped

_LEFT_OUT = (".venv", ".git", ".reflux", "artifacts", "mlartifacts", "mlflow.db*", "*_cache", "cache", "tmp")


def copy_checkout(folder: Path) -> Path:
    """Copy this checkout without its artifacts and caches; returns the copy's folder, ``<folder>/reflux``."""
    return Path(shutil.copytree(ROOT, folder / "reflux", symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT)))


def reflux_run(
    checkout: Path, assignments: Iterable[str] = (), environment: Mapping[str, str] = os.environ, exit_code: int = 0
) -> float:
    """Run ``reflux run -S …`` in a copy of this checkout; returns its wall time in seconds.

    Raises:
        SystemExit: it ended with another exit code.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "reflux.flows.cli", "run", *(word for one in assignments for word in ("-S", one))]
    ceiling = {"GIT_CEILING_DIRECTORIES": str(checkout.parent)}
    done = subprocess.run(command, cwd=checkout, env={**environment, **ceiling}, check=False)
    if done.returncode != exit_code:
        sys.exit(f"Error: `reflux run` ended with exit code {done.returncode}, not {exit_code}.")
    return time.monotonic() - began


def accuracies(checkout: Path) -> dict[str, float]:
    """Accuracies of the test split in percent after a run: of the teacher, the student that ships, and the control.

    Where the control ships instead of the student that was distilled, that one is ``distilled``.
    """
    metrics = json.loads((checkout / "artifacts/evaluate/metrics.json").read_text(encoding="utf-8"))
    models = {"teacher": metrics["teacher"], "student": shipped(metrics), "control": metrics["control"]}
    models |= {"distilled": metrics["distilled"]} if "distilled" in metrics else {}
    return {name: 100 * model["accuracy"] for name, model in models.items()}


def code_digest(*benchmark: Path) -> str:
    """A digest of a benchmark's own files and of components/core and distill, with which it trains."""
    places = (ROOT / "components/core", ROOT / "components/stages/distill", *benchmark)
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
