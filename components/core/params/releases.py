"""The release of Reflux that a project asks for."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from reflux.components.core.errors import UserError

PROJECT = "pyproject.toml"
_PIN = re.compile(r"""(["']reflux(?:\[[^\]]*\])? *== *)[\w.+!-]+""")  # also with extras: "reflux[tune]==0.1.0"


def refuse_newer(folder: Path) -> None:
    """Refuse the project of a newer release than the one that is installed.

    Raises:
        UserError: its ``pyproject.toml`` asks for a newer one, or is not valid.
    """
    wanted = release_of(folder / PROJECT)
    if wanted is not None and wanted > (installed := Version(version("reflux"))):
        raise UserError(
            f"This project is of Reflux {wanted}, and {installed} is installed: install the wheel of the release "
            f"that {PROJECT} names."
        )


def release_of(path: Path) -> Version | None:
    """The release that a project is of, by its ``pyproject.toml``; None if that names none.

    Raises:
        UserError: the file is not valid.
    """
    requirement = requirement_of(path)
    if requirement is None:
        return None
    least = [each.version for each in requirement.specifier if each.operator in ("==", "~=", ">=")]
    return max((Version(each.removesuffix(".*")) for each in least), default=None)


def requirement_of(path: Path) -> Requirement | None:
    """What a project's ``pyproject.toml`` asks for of Reflux; None if it asks for nothing.

    Raises:
        UserError: the file is not valid.
    """
    try:
        return _requirement(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        return None


def with_release(text: str, release: str) -> str:
    """The text of a ``pyproject.toml`` that asks for a release instead of another one.

    Raises:
        UserError: it is not valid, or asks for releases in a way that excludes this one.
    """
    path = Path(PROJECT)
    requirement = _requirement(text, path)
    if requirement is None:
        return text
    pinned = _PIN.sub(rf"\g<1>{release}", text)
    if not (_requirement(pinned, path) or requirement).specifier.contains(release, prereleases=True):
        raise UserError(f"{path} asks for {requirement}, and {release} is installed: write reflux=={release}.")
    return pinned


def _requirement(text: str, path: Path) -> Requirement | None:
    """What a project asks for of Reflux, if it does.

    Raises:
        UserError: the file is not valid.
    """
    try:
        named = [Requirement(each) for each in tomllib.loads(text).get("project", {}).get("dependencies", [])]
    except ValueError as error:
        raise UserError(f"{path} is not valid ({' '.join(str(error).split())}): correct it.") from None
    return next((each for each in named if each.name == "reflux"), None)
