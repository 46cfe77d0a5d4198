"""The code, data and params that a run is made of."""

import hashlib
import json
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import code_of
from reflux.components.core.errors import UserError
from reflux.components.core.params import extensions
from reflux.components.core.params.file import PARAMS
from reflux.components.core.project import root

COMPONENTS = Path(__file__).parents[2]
NONE = "none"
LOCK = Path("dvc.lock")
_CODE = (".py", ".j2")


@dataclass(frozen=True)
class Code:
    """The state of the code: git's full hash of the commit, or ``none``, and whether files differ from it."""

    sha: str
    dirty: bool
    missing: str | None  # one sentence on the lineage that is missing


def code() -> Code:
    """The commit of this checkout; ``dvc.lock`` is a result of runs and makes no code dirty."""
    try:
        sha = git("rev-parse", "--verify", "HEAD")
        dirty = bool(git("status", "--porcelain", "--", str(root()), f":(exclude,top,glob)**/{LOCK}"))
    except FileNotFoundError:
        return Code(NONE, False, _sentence("git is not installed"))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["git failed"])[0].removeprefix("fatal: ")
        if "not a git repository" in reason:
            reason = "this folder is no git checkout"
        elif "single revision" in reason:
            reason = "this git repository has no commit yet"
        return Code(NONE, False, _sentence(reason))
    return Code(sha, dirty, None)


def code_sha256(stage: str) -> str:
    """The hash of the code that decides a stage's result, as :mod:`reflux.components.core.contract` lists it.

    Checkpoints and soft labels are kept under it.
    """
    return files_sha256(code_of(stage))


def files_sha256(parts: Sequence[str]) -> str:
    """The hash of the files and folders ``parts`` of the package's ``components``, and of what extends them."""
    return _sha256(_sources(parts) | extensions_sha256(parts))


def part_sha256(part: str) -> str:
    """The hash of a file or folder of the package's ``components``."""
    return _sha256(_sources([part]))


def _sources(parts: Sequence[str]) -> dict[str, str]:
    """The hashes of the files of some parts, by their paths; pages do not count."""
    paths = [COMPONENTS / part for part in parts]
    found = (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
    files = sorted(file for file in found if file.suffix in _CODE)
    return {file.relative_to(COMPONENTS).as_posix(): sha256_file(file) for file in files}


def _sha256(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def extensions_sha256(parts: Collection[str]) -> dict[str, str]:
    """The hashes of the extensions of these folders of ``components``, by name."""
    return {each.name: sha256_file(each.file) for each in extensions.found() if extensions.EXTENDED[each.kind] in parts}


def data_md5(lock: Path = LOCK) -> str | None:
    """DVC's hash of the dataset that ``ingest`` read last.

    Raises:
        UserError: the file is damaged, for example by a merge.
    """
    try:
        document = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))
        dependencies = document.get("stages", {}).get("ingest", {}).get("deps", [])
        return next((dep.get("md5") for dep in dependencies), None)
    except FileNotFoundError:
        return None
    except (YAMLError, ValueError, AttributeError, TypeError):
        raise UserError(f"{lock} is damaged: restore it with `git checkout {lock}`.") from None


def has_commit(sha: str) -> bool:
    """True if this checkout has the commit."""
    try:
        git("cat-file", "-e", f"{sha}^{{commit}}")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
    return True


def where_data_is_known(md5: str) -> str | None:
    """Look a data version (``.dir`` ends a folder's) up in ``dvc.lock``, DVC's cache and the commits, or None."""
    if md5 == data_md5():
        return str(LOCK)
    config = ConfigParser()
    dvc = root() / ".dvc"
    config.read([dvc / "config", dvc / "config.local"], encoding="utf-8")
    # A relative folder starts at the file that names it.
    cache = dvc / config.get("cache", "dir", fallback="cache").strip('"') / "files" / "md5"
    if (cache / md5[:2] / md5[2:]).is_file():
        return "DVC's cache"
    try:
        commit = git("log", "--all", "--max-count=1", "--format=%h", f"-S{md5}", "--", str(LOCK), ":(top)*.dvc")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return f"commit {commit}" if commit else None


def params_sha256(path: Path = PARAMS) -> str:
    """The sha256 of the params file as the run read it."""
    return sha256_file(path)


def _sentence(reason: str) -> str:
    return f"Lineage without git ({reason}): MLflow knows this run's data and params, but not its code."


def git(*arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float | None = None) -> str:
    """Run a git command; returns what it printed.

    Raises:
        CalledProcessError: git refuses, or this is no checkout.
        FileNotFoundError: git is not installed.
        TimeoutExpired: it did not end in time.
    """
    settings = {**os.environ, **(environment or {})}
    command = ["git", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=settings, timeout=timeout_s)
    return done.stdout.strip()
