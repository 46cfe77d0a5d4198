"""``reflux new``: a folder with what a project consists of, under git and DVC."""

import contextlib
import os
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from string import Template

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.lineage import git
from reflux.flows.commands.data import add
from reflux.flows.local.environment import reflux_command
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.upgrade import TEMPLATE

_DEMO = ("fashion-mnist", "shoe.png")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Under other names in the package: its wheel leaves out what begins with a dot, and tools would read a pyproject.toml.
_RENAMED = {"gitignore": ".gitignore", "github": ".github", "pyproject": "pyproject.toml"}
_FILLED_IN = ("README.md", "pyproject.toml")
_NOBODY = ("-c", "user.name=reflux", "-c", "user.email=reflux@localhost")


def new(folder: Path, source: Path | None = None) -> str:
    """Make a project in a folder, with a dataset, or with the one that comes with Reflux.

    Args:
        folder: the project's folder, whose name is the project's; it must not exist, or be empty.
        source: a dataset, for which a plan is made as by ``reflux data add``.

    Returns:
        The message for the user.

    Raises:
        UserError: the folder is not empty or its name is no project's, or the dataset is refused; nothing is left.
    """
    folder, source = Path(os.path.abspath(folder)), source.resolve() if source else None
    name = folder.name
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} is {'a file' if folder.is_file() else 'not empty'}: name a new folder.")
    if not NAME.fullmatch(name):
        raise UserError(f"{name} can't name a project: begin with a letter or digit, and go on with those, - and _.")
    parents = [each for each in folder.parents if not each.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{name}-partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    try:
        _write(partial, name, demo=source is None)
        with contextlib.chdir(partial):
            added, missing = _fill(name, source)
        _place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for each in () if folder.exists() else parents:
            with contextlib.suppress(OSError):  # something else is in it by now
                each.rmdir()
    here = folder == Path.cwd()
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    made = f"{name if here else shown} is a project of Reflux {version('reflux')}; its README.md says what is where."
    return f"{added}{missing}{made}\nNext: {'' if here else f'cd {shown} && '}{reflux_command()} run"


def _place(project: Path, folder: Path) -> None:
    """Move a finished project to its folder. One that exists is filled, not replaced: a shell may be working in it."""
    if not folder.is_dir():
        project.rename(folder)
        return
    try:
        for path in project.iterdir():
            shutil.move(path, folder)
    except BaseException:
        for path in folder.iterdir():  # it was empty
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _write(folder: Path, name: str, demo: bool) -> None:
    """Write a project's files."""
    shutil.copytree(TEMPLATE, folder, ignore=None if demo else shutil.ignore_patterns(*_DEMO))
    for kept_as, name_of in _RENAMED.items():
        (folder / kept_as).rename(folder / name_of)
    for file in (folder / each for each in _FILLED_IN):
        text = Template(file.read_text(encoding="utf-8")).substitute(name=name, version=version("reflux"))
        file.write_text(text, encoding="utf-8")
    names = [f"project.name={name}", f"registry.model_name={name}-student"]
    override_params(names, folder / "params.yaml")


def _fill(name: str, source: Path | None) -> tuple[str, str]:
    """Put the working folder under git and DVC, with a dataset.

    Returns:
        What was said of the dataset, and a sentence on git where it is missing.
    """
    try:
        git("init", "--quiet", "--initial-branch", "main")
        missing = ""
    except FileNotFoundError:
        missing = "Note: git is not installed, so that runs will not know which commit they are of.\n"
    prepare_dvc()
    added = add(source, name).rpartition("Next: ")[0] if source else ""
    if not missing:
        git("add", ".")
        git(*_author(), "commit", "--quiet", "--message", f"A project of Reflux {version('reflux')}")
    return added, missing


def _author() -> tuple[str, ...]:
    """Options of git where it knows no name to commit under."""
    try:
        git("var", "GIT_AUTHOR_IDENT")
        return ()
    except subprocess.CalledProcessError:
        return _NOBODY
