"""The class shares of the data versions that passed, on this machine.

DVC deletes a stage's outputs before it runs, so what must outlive a run is kept elsewhere.
"""

import json
import time
from pathlib import Path
from typing import Any

HISTORY = Path(".reflux/data-versions.jsonl")


def previous(path: Path, dataset: str, fingerprint: str) -> dict[str, Any] | None:
    """A dataset's latest version other than ``fingerprint``: its ``fingerprint`` and ``class_shares``, or None."""
    versions = reversed(_read(path, dataset))
    return next((version for version in versions if version["fingerprint"] != fingerprint), None)


def remember(path: Path, dataset: str, fingerprint: str, class_shares: dict[str, float]) -> None:
    """Add a version of a dataset, unless it is its latest already."""
    versions = _read(path, dataset)
    if versions and versions[-1]["fingerprint"] == fingerprint:
        return
    line = {"dataset": dataset, "fingerprint": fingerprint, "time": round(time.time()), "class_shares": class_shares}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        # A line that a kill cut off must not swallow this one.
        cut_off = file.tell() and path.read_bytes()[-1:] != b"\n"
        file.write((b"\n" if cut_off else b"") + json.dumps(line).encode() + b"\n")


def _read(path: Path, dataset: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    versions = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            version = json.loads(line)
        except json.JSONDecodeError:  # cut off by a kill
            continue
        if not isinstance(version, dict) or not {"fingerprint", "class_shares"} <= version.keys():
            continue
        if version.get("dataset") == dataset:
            versions.append(version)
    return versions
