"""The code that each results file measures, and what of it has changed since.

A results file is shown with a sentence if the code that decided its figures is another one by now: figures of an
earlier rule are no figures of this one. Comments, docstrings and pages are no code.
"""

import ast
import subprocess
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from reflux.components.core.contract import STAGES

ROOT = Path(__file__).parents[2]

_PLAN = ("components/advice/plan", "components/advice/preflight")
_TRANSFER = ("ingest", "pretrain", "finetune")
_MODELS = "components/modalities/image/models"
_FILES = ("components/core/export", _MODELS, "compress")
_STUDENT = (_MODELS, "components/core/training", "components/modalities/image/views")
_DISTILLED = (*_STUDENT, "components/core/teacher", "components/stages/distill")
_SERVERS = ("components/registry", "flows")

# What decides the figures of a results file: stages with all that they import, folders and files.
MEASURES: dict[str, tuple[str, ...]] = {
    "boards": ("components/observe/boards",),
    "datasets": (*STAGES, *_PLAN),
    "edge": _FILES,
    "exporters": _FILES,
    "few_labels": _DISTILLED,
    "hinton_mnist": (*_STUDENT, "components/stages/distill/losses"),
    "imagenet": _TRANSFER,
    "methods": _DISTILLED,
    "pipeline": (*STAGES, "flows"),
    "promotion": ("components/registry/policy", "components/core/significance.py"),
    "pruning": (*_DISTILLED, "components/stages/pretrain/pruning.py"),
    "remote": ("flows/local/environment.py",),
    "scale": ("ingest", "validate", "label", "distill"),
    "seeds": (*STAGES, "params.yaml"),
    "servers": _SERVERS,
    "threads": ("flows/local/supervised.py",),
    "throughput": (*_DISTILLED, "components/stages/label"),
    "transfer": _TRANSFER,
    "wider": (*_DISTILLED, *_FILES),
}


class NoHistoryError(SystemExit):
    """The checkout has no git, or lacks the commit."""


def paths_of(part: str) -> tuple[str, ...]:
    """The files and folders of a part of the code, from the root of the checkout."""
    from reflux.components.core.runtime import closure  # grimp is not on a bare GPU machine

    return tuple(f"components/{path}" for path in closure.files(f"stages.{part}")) if part in STAGES else (part,)


def changed(name: str, commits: Iterable[str]) -> list[str]:
    """The parts that a results file measures whose code differs from that of any of the commits.

    Args:
        name: of the results file.
        commits: as results name them; one that is ``unknown`` differs in nothing that could be told.

    Raises:
        NoHistoryError: the checkout lacks a commit.
    """
    parts = MEASURES.get(name, ())
    paths = {path for part in parts for path in paths_of(part)}
    known = {commit.removesuffix("+") for commit in commits} - {"unknown"}
    files = {file for commit in known for file in _differing(commit, frozenset(paths))}
    return [part for part in parts if any(_is_in(file, paths_of(part)) for file in files)]


def sentence(name: str, commits: Iterable[str]) -> str:
    """Say that the code which a results file measures has changed since any of these commits; empty if it has not."""
    return " The code that was measured has changed since." if changed(name, commits) else ""


def forget() -> None:
    """Look at the files again: what has been found of them is kept."""
    _differing.cache_clear()
    _says_the_same.cache_clear()


def is_known(commit: str) -> bool:
    """Tell if a commit is part of the history of the checkout.

    Raises:
        NoHistoryError: the checkout has no git, or only the latest commits.
    """
    if _git("rev-parse", "--is-shallow-repository").strip() != "false":
        raise NoHistoryError(
            "Error: this clone is shallow: git fetch --unshallow brings the commits that results name."
        )
    try:
        _git("merge-base", "--is-ancestor", commit, "HEAD")
    except NoHistoryError:
        return False
    return True


def _is_in(file: str, paths: Collection[str]) -> bool:
    return any(file == path or file.startswith(f"{path}/") for path in paths)


@cache
def _differing(commit: str, paths: frozenset[str]) -> frozenset[str]:
    """The files below these paths whose code is another one than at a commit, uncommitted changes included."""
    names = _git("diff", "--name-only", "--no-renames", commit, "--", *sorted(paths), ":!*.md").splitlines()
    return frozenset(name for name in names if not _says_the_same(commit, name))


@cache
def _says_the_same(commit: str, file: str) -> bool:
    try:
        before, now = _git("show", f"{commit}:{file}"), (ROOT / file).read_text(encoding="utf-8")
    except (NoHistoryError, FileNotFoundError):  # it is new, or gone
        return False
    return meaning(before, Path(file).suffix) == meaning(now, Path(file).suffix)


def meaning(text: str, suffix: str) -> object:
    """A file's text to compare: YAML without comments, Python without docstrings and layout either."""
    if suffix == ".yaml":
        from ruamel.yaml import YAML  # nor is this

        return YAML(typ="safe").load(text)
    if suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return ast.dump(tree)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoHistoryError(f"Error: the history does not tell what results measured: {error}") from None
    return done.stdout
