"""DVC's remote: workers store there what they have computed, and restore from there what others have.

DVC's own ``push --run-cache`` and ``repro --pull`` do the work. Both copy the whole run-cache, a small file for each
stage that was ever computed, so their time grows with the history of the project.
"""

from collections.abc import Sequence
from pathlib import Path

from reflux.components.core.runtime.tracking import without_secrets
from reflux.flows.outcome import StageFailed
from reflux.flows.repo.checkout import dvc, refusals_of_dvc
from reflux.flows.repo.stages import failure


def name() -> str | None:
    """The name of DVC's default remote, if one is configured for this project, user or machine.

    Raises:
        UserError: a file of DVC's settings is damaged.
    """
    from dvc.config import Config

    with refusals_of_dvc():
        return Config.from_cwd(validate=False).get("core", {}).get("remote")


def push(remote: str, stage: str = "", in_clone: bool = False) -> None:
    """Store on the remote what a stage made, or everything that is missing there, and how to find it again.

    Args:
        remote: its name.
        stage: the stage that has just been computed; empty for all of them and the data.
        in_clone: this checkout is deleted after the run.

    Raises:
        StageFailed: the remote refuses it; transient.
    """
    if reason := _refused("push", "--run-cache", "--remote", remote, *[stage] * bool(stage)):
        raise StageFailed("push", not_stored(remote, stage, reason, in_clone), user_error=True, transient=True)


def pull(remote: str, outs: Sequence[str]) -> None:
    """Restore what other machines have computed, as ``dvc.lock`` names it.

    Args:
        remote: its name.
        outs: paths in ``artifacts/``.

    Raises:
        StageFailed: the remote does not return it; transient.
    """
    if reason := _refused("pull", "--remote", remote, *outs):
        why = f"does not return what is stored there ({reason})"
        sentence = f"DVC's remote {remote} {why}: check it (`dvc remote list`)"
        raise StageFailed("pull", sentence, user_error=True, transient=True)


def not_stored(remote: str, stage: str, reason: str, in_clone: bool) -> str:
    """The reason why the run ends here, and where its results are."""
    cache = cache_folder()
    kept = (
        "DVC's cache is in this run's clone and is deleted with it (set cache.dir on the workers, infra/README.md)"
        if in_clone and cache.is_relative_to(Path.cwd())
        else f"it is kept in {cache}: once the remote answers, the next run stores it without computing it again"
    )
    return f"{stage or 'the result'} can't be stored on DVC's remote {remote} ({reason}): {kept}"


def cache_folder() -> Path:
    """DVC's cache on this machine."""
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(repo.cache.local_cache_dir).resolve()


def _refused(command: str, *arguments: str) -> str:
    """Run a DVC command to its end; why it failed, or nothing."""
    code, lines = dvc(command, *arguments)
    return without_secrets(failure(command, code, lines).sentence).rstrip(".") if code else ""
