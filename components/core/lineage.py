"""Which code, which data and which params a run is made of."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from components.core.artifacts import sha256_file
from components.core.params import PARAMS

NONE = "none"
LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Code:
    """The state of the code.

    Args:
        sha: git's full hash of the commit, or ``none``.
        dirty: whether tracked or new files differ from it.
        missing: one sentence on the lineage that is missing, or None.
    """

    sha: str
    dirty: bool
    missing: str | None


def code() -> Code:
    """The commit this checkout stands on; ``dvc.lock`` is a result of runs and makes no code dirty."""
    try:
        sha = _git("rev-parse", "--verify", "HEAD").strip()
        dirty = bool(_git("status", "--porcelain", "--", ".", f":(exclude){LOCK}").strip())
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


def data_md5(lock: Path = LOCK) -> str | None:
    """DVC's hash of the dataset that ``ingest`` read last."""
    try:
        document = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    dependencies = document.get("stages", {}).get("ingest", {}).get("deps", [])
    return next((dep.get("md5") for dep in dependencies if not dep["path"].startswith("components/")), None)


def params_sha256(path: Path = PARAMS) -> str:
    """The sha256 of the params file as the run read it."""
    return sha256_file(path)


def _sentence(reason: str) -> str:
    return f"Lineage without git ({reason}): MLflow knows this run's data and params, but not its code."


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout
