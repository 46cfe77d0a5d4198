"""The class shares of the data versions that passed, on this machine.

DVC deletes a stage's outputs before it runs, so what must outlive a run is kept elsewhere.
"""

import json
import time
from pathlib import Path
from typing import Any

HISTORY = Path(".reflux/data-versions.jsonl")


def previous(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The latest data version that differs from ``fingerprint``: its ``fingerprint`` and ``class_shares``, or None."""
    return next((version for version in reversed(_read(path)) if version["fingerprint"] != fingerprint), None)


def remember(path: Path, fingerprint: str, class_shares: dict[str, float]) -> None:
    """Add a data version, unless it is the latest already."""
    versions = _read(path)
    if versions and versions[-1]["fingerprint"] == fingerprint:
        return
    line = {"fingerprint": fingerprint, "time": round(time.time()), "class_shares": class_shares}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        # A line that a kill cut off must not swallow this one.
        cut_off = file.tell() and path.read_bytes()[-1:] != b"\n"
        file.write((b"\n" if cut_off else b"") + json.dumps(line).encode() + b"\n")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    versions = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            version = json.loads(line)
        except json.JSONDecodeError:  # cut off by a kill
            continue
        if isinstance(version, dict) and {"fingerprint", "class_shares"} <= version.keys():
            versions.append(version)
    return versions
