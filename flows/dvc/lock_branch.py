"""``dvc.lock`` comes back from a clone that is deleted: as a branch if git's remote takes one, else through MLflow."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.core.params.file import PARAMS
from components.core.runtime.journal import Journal
from components.core.runtime.lineage import LOCK
from components.core.runtime.tracking import without_password
from flows.dvc.stages import supervised

TAG = "dvc.lock"
_REMOTE = "origin"
_PUSH_S = 120.0
# Nobody is there to type a password.
_UNATTENDED = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")}
_AUTHOR = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "Reflux"), ("EMAIL", "reflux@localhost"))
}


def bring_back(run_name: str, journal: Journal) -> str:
    """Give the team the lock file of a finished run, and tag its run in MLflow with where it is.

    Args:
        run_name: the run's name in MLflow, ``retrain-…``.
        journal: its journal.

    Returns:
        One sentence on where it went.
    """
    branch = f"retrain/{run_name.removeprefix('retrain-')}"
    try:
        sha = commit(f"{LOCK} of {run_name}")
        if sha is None:
            return f"{LOCK} is as the commit of this run has it."
        problem = push(sha, branch)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        problem = said[-1].removeprefix("fatal: ")
    if problem is None:
        journal.tags({TAG: branch})
        return f"{LOCK} is on the branch {branch}."
    journal.artifact(LOCK)
    journal.tags({TAG: "artifact"})
    return f"{LOCK} is an artifact of the run in MLflow, as no branch could be pushed: {problem}."


def push(sha: str, branch: str) -> str | None:
    """Push a commit as a new branch.

    Args:
        sha: the commit.
        branch: its name on the remote.

    Returns:
        None, or why it could not be pushed.
    """
    command = ["git", "push", "--quiet", _REMOTE, f"{sha}:refs/heads/{branch}"]
    process = supervised(command, _UNATTENDED, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=_PUSH_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        return f"git did not end within {_PUSH_S:.0f} s"
    lines = [line for line in output.splitlines() if line.strip()]
    return None if process.returncode == 0 else without_password((lines or ["git push failed"])[0])


def commit(message: str) -> str | None:
    """A commit on top of HEAD with the present lock file and params; checkout, index and branches stay as they are.

    Returns:
        Its hash; None when HEAD has them already.

    Raises:
        CalledProcessError: git refuses; this is no checkout, or it has no commit.
    """
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(index, "read-tree", "HEAD")
        _git(index, "add", "--force", "--", str(LOCK), str(PARAMS))
        tree = _git(index, "write-tree")
    if tree == _git({}, "rev-parse", "HEAD^{tree}"):
        return None
    return _git(_AUTHOR, "commit-tree", tree, "-p", "HEAD", "-m", message)


def _git(environment: Mapping[str, str], *arguments: str) -> str:
    settings = {**os.environ, **environment}
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, env=settings).stdout.strip()
