"""The dataset that a run reads: fetched, its version, put under DVC."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from reflux.components.core.artifacts import fingerprint, sha256_file
from reflux.components.core.errors import UserError
from reflux.components.core.runtime.lineage import git
from reflux.flows.repo.checkout import dvc, refusals_of_dvc
from reflux.flows.repo.stages import own_sentence

_PUT_THERE = "put a dataset there, or run `reflux data add PATH`"


def fetch(datasets: Mapping[str, str]) -> None:
    """Pull datasets that only DVC's remote has, as in a fresh clone.

    Args:
        datasets: their paths by the params that name them.

    Raises:
        UserError: a dataset is not here, is empty, or cannot be pulled.
    """
    for param, path in datasets.items():
        _fetch(path, param)


def _fetch(source: str, param: str) -> None:
    path = Path(source)
    if not path.exists() and _pointer(source).is_file():
        code, lines = dvc("pull", str(_pointer(source)))
        if code != 0:
            raise UserError(f"{param} = {source} is not here, and DVC can't pull it ({_reason(lines)}): {_PUT_THERE}.")
    if not path.exists():
        raise _missing(source, param)
    if path.is_dir() and not any(file.is_file() for file in path.rglob("*")):
        raise UserError(f"{param} = {source} is empty: put images there, or run `reflux data add PATH`.")


def version(source: str) -> str:
    """DVC's hash of the dataset as it is now, the one that ``dvc.lock`` will have for it.

    Args:
        source: ``ingest.source``: a path in the project, or that of a folder or file elsewhere on this machine.

    Raises:
        UserError: it is not here, and DVC does not know it; or DVC refuses a file of the project.
    """
    if not Path(source).exists():
        if not _pointer(source).is_file():
            raise _missing(source)
        return str(YAML(typ="safe").load(_pointer(source).read_text(encoding="utf-8"))["outs"][0]["md5"])
    from dvc.repo import Repo

    with refusals_of_dvc(), Repo() as repo:
        dependencies = repo.stage.load_one(name="ingest").deps
        return str(next(dep for dep in dependencies if dep.hash_name != "params").get_hash().value)


def version_of_other(source: str, param: str) -> str:
    """What tells one content of a dataset that is not the run's own from another: its hash, or its pointer's.

    It is the pointer's while only DVC has the dataset.

    Raises:
        UserError: it is not here, and DVC does not know it.
    """
    if Path(source).exists():
        return fingerprint(Path(source))
    if not _pointer(source).is_file():
        raise _missing(source, param)
    return sha256_file(_pointer(source))


def track(folder: Path) -> str:
    """Put a dataset under DVC, unless git versions it already; returns a sentence on which it is.

    Raises:
        UserError: DVC refuses it.
    """
    if _in_git_index(folder):
        return "git versions it already."
    code, lines = dvc("add", "--quiet", str(folder))
    if code != 0:
        raise UserError(f"DVC can't take {folder}: {_reason(lines)}.")
    return f"DVC versions it: commit {folder}.dvc, {folder.parent}/.gitignore and params.yaml."


def _pointer(source: str) -> Path:
    return Path(f"{source.rstrip('/')}.dvc")


def _missing(source: str, param: str = "ingest.source") -> UserError:
    return UserError(f"{param} = {source} does not exist: {_PUT_THERE}.")


def _in_git_index(path: Path) -> bool:
    try:
        return bool(git("ls-files", "--", str(path)))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False


def _reason(lines: list[str]) -> str:
    return (own_sentence(lines) or "no reason given").rstrip(".")
