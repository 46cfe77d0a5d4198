"""``dvc.lock`` leaves a clone that is deleted: as a branch if git's remote takes one, else through MLflow."""

import os
import subprocess
import tempfile
from pathlib import Path

from reflux.components.core.params.file import PARAMS
from reflux.components.core.runtime.journal import Journal
from reflux.components.core.runtime.lineage import LOCK, git
from reflux.components.core.runtime.tracking import without_secrets
from reflux.flows.local.pipelines import current

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
    own = [current()] * bool(current())  # two pipelines may begin in the same second
    branch = f"retrain/{'-'.join([*own, run_name.removeprefix('retrain-')])}"
    try:
        sha = commit(f"{LOCK} of {run_name}")
        if sha is None:
            return f"{LOCK} is as the commit of this run has it."
        git("push", "--quiet", _REMOTE, f"{sha}:refs/heads/{branch}", environment=_UNATTENDED, timeout_s=_PUSH_S)
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        journal.artifact(LOCK)
        journal.tags({TAG: "artifact"})
        return f"{LOCK} is an artifact of the run in MLflow, as no branch could be pushed: {_reason(error)}."
    journal.tags({TAG: branch})
    return f"{LOCK} is on the branch {branch}."


def commit(message: str) -> str | None:
    """A commit on top of HEAD with the present lock file and params; checkout, index and branches stay as they are.

    Returns:
        Its hash; None when HEAD has them already.

    Raises:
        CalledProcessError: git refuses; this is no checkout, or it has no commit.
    """
    with tempfile.TemporaryDirectory(prefix="reflux-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git("read-tree", "HEAD", environment=index)
        git("add", "--force", "--", str(LOCK), str(PARAMS), environment=index)
        tree = git("write-tree", environment=index)
    if tree == git("rev-parse", "HEAD^{tree}"):
        return None
    return git("commit-tree", tree, "-p", "HEAD", "-m", message, environment=_AUTHOR)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"git did not end within {_PUSH_S:.0f} s"
    printed = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
    return without_secrets(printed[0].removeprefix("fatal: "))
