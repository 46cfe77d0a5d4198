"""Projects of other releases: the params that were renamed or removed, and the release that a project asks for."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from reflux.components.core.errors import UserError

PROJECT = "pyproject.toml"
_PIN = re.compile(r"""(["']reflux(?:\[[^\]]*\])? *== *)[\w.+!-]+""")  # also with extras: "reflux[tune]==0.1.0"


@dataclass(frozen=True)
class Change:
    """A param that has another name in newer releases, or that is gone.

    Attributes:
        release: the first without the old name.
        old: its name, with the section.
        new: its name now; None if it is gone.
        value: how its value is written now.
        why: it is gone, as a sentence goes on after a colon.
    """

    release: str
    old: str
    new: str | None = None
    value: str = "{}"
    why: str = ""

    def __str__(self) -> str:
        return f"{self.old} is {self.new} now" if self.new else f"{self.old} is gone: {self.why}"


# An old name is never given to another param: the names in a params file show which release it is of.
CHANGES = (
    Change("0.1.0", "compress.int8", why="the int8 file is always made, and compress.ships chooses"),
    Change("0.1.0", "distill.temperature", "distill.method", "{{name: kd, temperature: {}}}"),
    Change("0.1.0", "ingest.max_unreadable", "ingest.max_quarantined"),
    Change("0.1.0", "validate.max_constant", why="images of one color no longer stop a run"),
    Change("0.1.0", "validate.max_size_px", why="what can be decoded can be trained on"),
    Change("0.1.0", "validate.min_per_class", why="few images of a class are a warning"),
    Change("0.1.0", "validate.min_size_px", "ingest.min_size_px"),
)


def changes_of(document: Mapping[str, Any]) -> list[Change]:
    """The changes whose old names a params file has."""
    return [change for change in CHANGES if holds(document, change.old)]


def holds(document: Any, name: str) -> bool:
    """Whether a document has a param of this name."""
    for part in name.split("."):
        if not isinstance(document, Mapping) or part not in document:
            return False
        document = document[part]
    return True


def refuse_older(document: Mapping[str, Any], path: Path) -> None:
    """Refuse the params file of an older release.

    Raises:
        UserError: it has a param under a name that newer releases don't know.
    """
    for change in changes_of(document):
        does = f"renames it to {change.new}" if change.new else "removes it"
        raise UserError(
            f"{path}: {change.old} is a param of releases before {change.release}: `reflux upgrade` {does}."
        )


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
