"""The command in a process of its own, as from a shell that knows nothing of this one."""

import os
import subprocess
import sys
from pathlib import Path

from tests.workspaces import PACKAGE


def environment(folder: Path) -> dict[str, str]:
    """This process's, without what points at servers or at a repository above the project, and with its own code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "REFLUX_"))}
    return kept | {"GIT_CEILING_DIRECTORIES": str(folder.parent), "PYTHONPATH": str(folder / PACKAGE)}


def call(folder: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)


def reflux(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return call(folder, "reflux.flows.cli", *arguments)
