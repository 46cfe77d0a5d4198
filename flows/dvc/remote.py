"""DVC's remote: what any worker has computed comes from there, and what this one computes goes there.

DVC's own ``push --run-cache`` and ``repro --pull`` do the work. Both copy the whole run-cache, a small file for each
stage that was ever computed, so their time grows with the history of the project.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from components.core.runtime.tracking import without_password
from flows.dvc.stages import StageFailed, failure, supervised
from flows.local.environment import mend_dvc_lock

_RETRIES = 4
_BACKOFF_S = 10  # 10, 20, 40 and 80 seconds


class RemoteRefused(StageFailed):
    """DVC's remote did not take what was computed, or does not give it."""


def name() -> str | None:
    """The name of DVC's default remote, if one is configured for this project, user or machine."""
    from dvc.config import Config

    return Config.from_cwd(validate=False).get("core", {}).get("remote")


def can_pass_by_itself(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """A remote that did not answer may answer later."""
    return isinstance(state.result(raise_on_failure=False), RemoteRefused)


_PATIENTLY: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": _RETRIES,
    "retry_delay_seconds": exponential_backoff(_BACKOFF_S),
    "retry_condition_fn": can_pass_by_itself,
}


@task(name="push", task_run_name="push {stage}", **_PATIENTLY)
def push(remote: str, stage: str = "") -> None:
    """Store what a stage made, or whatever is missing there, on the remote; and how to find it again.

    Args:
        remote: its name.
        stage: the stage that has just been computed; empty for all of them and the data.

    Raises:
        RemoteRefused: the remote does not take it.
    """
    if reason := _refused("push", "--run-cache", "--remote", remote, *[stage] * bool(stage)):
        raise RemoteRefused("push", not_stored(remote, stage, reason), user_error=True)


@task(name="pull", task_run_name="pull", **_PATIENTLY)
def pull(remote: str, outs: Sequence[str]) -> None:
    """Have here what other machines have computed, as ``dvc.lock`` knows it.

    Args:
        remote: its name.
        outs: paths in ``artifacts/``.

    Raises:
        RemoteRefused: the remote does not give it.
    """
    if reason := _refused("pull", "--remote", remote, *outs):
        raise RemoteRefused(
            "pull", f"DVC's remote {remote} does not give what is stored there ({reason})", user_error=True
        )


def _refused(command: str, *arguments: str) -> str:
    """Run a DVC command to its end; why it failed, or nothing."""
    mend_dvc_lock()
    process = supervised([sys.executable, "-m", "dvc", "--wait-for-lock", command, *arguments], {}, subprocess.PIPE)
    output, _ = process.communicate()
    if process.returncode == 0:
        return ""
    lines = [line for line in output.splitlines() if line.strip()]
    return without_password(failure(command, process.returncode, lines).sentence).rstrip(".")


def not_stored(remote: str, stage: str, reason: str) -> str:
    """Why the run ends here, and what the next one will find."""
    cache = cache_folder()
    lost = runtime.deployment.id and cache.is_relative_to(Path.cwd())
    kept = (
        "DVC's cache is in this run's clone and goes with it (set cache.dir on the workers, infra/README.md)"
        if lost
        else f"it is kept in {cache}, and once the remote answers the next run stores it and computes nothing again"
    )
    return f"{stage or 'the result'} can't be stored on DVC's remote {remote} ({reason}): {kept}"


def cache_folder() -> Path:
    """DVC's cache on this machine."""
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(repo.cache.local_cache_dir).resolve()
