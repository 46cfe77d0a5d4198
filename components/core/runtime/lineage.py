"""The code, data and params that a run is made of."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.core.params import extensions
from reflux.components.core.params.file import PARAMS
from reflux.components.core.project import root
from reflux.components.core.runtime import closure

COMPONENTS = Path(__file__).parents[2]
NONE = "none"
LOCK = Path("dvc.lock")


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


def code_sha256(*names: str) -> str:
    """Hash the code that decides what modules compute, with the extensions of it.

    Checkpoints, soft labels and all that is kept from one run for the next are kept under it.

    Args:
        names: modules and packages of ``components``, such as ``stages.distill`` or ``advice.teachers.features``.
    """
    code = _code_of(*names)
    return _sha256(_sha256s(code) | _extensions_sha256(code))


def code_by_folder(stage: str) -> dict[str, str]:
    """Hash the code that decides a stage's result, by part of ``components``, and by extension.

    Returns:
        Hashes by names: ``components/stages/distill``, ``components/core/student.py``, ``extensions/losses/mine.py``.
    """
    code = _code_of(f"stages.{stage}")
    folders = dict[str, list[str]]()
    for path in code:
        top, *below = path.split("/")
        folders.setdefault("/".join(["components", top, *below[:1]]), []).append(path)
    return {name: _sha256(_sha256s(paths)) for name, paths in folders.items()} | _extensions_sha256(code)


def _code_of(*names: str) -> list[str]:
    """The source files that decide what modules compute, relative to ``components``."""
    return [*closure.files(*names), *(path for name in names for path in _templates(name))]


def _sha256s(code: Iterable[str]) -> dict[str, str]:
    return {path: sha256_file(COMPONENTS / path) for path in code}


def _templates(name: str) -> list[str]:
    found = (COMPONENTS / name.replace(".", "/")).rglob("*.j2")
    return sorted(file.relative_to(COMPONENTS).as_posix() for file in found)


def _sha256(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _extensions_sha256(code: Iterable[str]) -> dict[str, str]:
    """The hashes of the extensions of the folders that these files are in, by name."""
    folders = {str(folder) for path in code for folder in PurePosixPath(path).parents}
    found = [each for each in extensions.found() if extensions.EXTENDED[each.kind] in folders]
    return {each.name: sha256_file(each.file) for each in found}


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
