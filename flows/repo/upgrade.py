"""What brings a project to the installed release: new texts of its files, and what changes with them."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from operator import getitem
from pathlib import Path
from typing import Any

from packaging.version import Version
from ruamel.yaml import YAML

import reflux
from reflux.components.core import dvc_yaml
from reflux.components.core.artifacts import atomic
from reflux.components.core.dvc_yaml import PIPELINE
from reflux.components.core.errors import UserError, listed
from reflux.components.core.params import migration, releases
from reflux.components.core.params.file import PARAMS, check_params, read
from reflux.components.core.project import PIPELINES, pipelines
from reflux.components.core.runtime import installed
from reflux.components.core.runtime.lineage import LOCK, git
from reflux.flows.repo.changes import differences

TEMPLATE = Path(reflux.__file__).with_name("template")
_PROJECT = Path(releases.PROJECT)
_OURS = "python -m reflux.components."


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade changes.

    Attributes:
        before: the release that the project is of, if ``pyproject.toml`` names one.
        now: the installed release.
        texts: the new contents of the files that change.
        notes: what is different then, in words, by file.
    """

    before: Version | None
    now: Version
    texts: Mapping[Path, str]
    notes: Mapping[Path, tuple[str, ...]]


def find_upgrade() -> Upgrade:
    """Find what brings the project whose root is the working folder to the installed release; nothing is written.

    Raises:
        UserError: a file is missing or not valid, or has what only a person can change; or the project is of a newer
            release, and what it uses of it would be lost.
    """
    before, now = releases.release_of(_PROJECT), Version(version("reflux"))
    is_newer = before is not None and before > now
    old: dict[Path, str] = {}
    for folder in folders():
        old |= {folder / PARAMS: read(folder / PARAMS)[0], folder / PIPELINE: dvc_yaml.text(folder / PIPELINE)}
    new: dict[Path, tuple[str, tuple[str, ...]]] = {}
    try:
        for path, text in old.items():
            new[path] = _pipeline(text, path, is_newer) if path.name == PIPELINE.name else _params(text, path)
    except UserError as error:
        if not is_newer:
            raise
        raise UserError(
            f"This project is of Reflux {before}, and {now}, which is installed, can't keep all of it "
            f"({str(error).partition(';')[0].rstrip('.')}): install the wheel of the release that {_PROJECT} names."
        ) from None
    if before is not None:
        old[_PROJECT] = _PROJECT.read_text(encoding="utf-8")
        new[_PROJECT] = (releases.with_release(old[_PROJECT], str(now)), (f"asks for Reflux {now}, not {before}",))
    texts = {path: text for path, (text, _) in new.items() if text != old[path]}
    notes = {path: said for path, (_, said) in new.items() if said and (path in texts or path != _PROJECT)}
    return Upgrade(before, now, texts, notes)


def folders() -> list[Path]:
    """The folders of the project's pipelines; its root, the working folder, is the first unless it is no pipeline."""
    below = [PIPELINES / name for name in pipelines()]
    return [Path(), *below] if PARAMS.is_file() or not below else below


def _params(text: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """A params file for the installed release, and what is different then.

    Raises:
        UserError: it is not valid, or has what only a person can change.
    """
    document = YAML(typ="safe").load(text)
    values = check_params(document, str(path)).model_dump(mode="json", by_alias=True)
    before = installed.locked_defaults(path.with_name(LOCK.name))
    left_out = {name: was for name, was in before.items() if not _holds(document, name)}
    now = {name: _value(values, name) for name in left_out if _holds(values, name)}
    shipped = (TEMPLATE / PARAMS).read_text(encoding="utf-8")
    text, added = migration.extended(text, shipped, values, left_out)
    return text, (
        *(f"new: {name}" + (f" = {json.dumps(_value(values, name))}" if "." in name else "") for name in added),
        *(f"the default of {each}" for each in differences({name: left_out[name] for name in now}, now)),
    )


def _holds(document: Any, name: str) -> bool:
    """True if a document has a param of this name."""
    for part in name.split("."):
        if not isinstance(document, Mapping) or part not in document:
            return False
        document = document[part]
    return True


def _value(values: Any, name: str) -> Any:
    return reduce(getitem, name.split("."), values)


def _pipeline(text: str, path: Path, is_newer: bool) -> tuple[str, tuple[str, ...]]:
    """``dvc.yaml`` with the stages of the installed release and the project's own, and what is different then.

    Args:
        text: of the project's.
        path: where it is.
        is_newer: it is of a newer release.

    Raises:
        UserError: it is not valid; or it has a stage of a newer release, or one in a layout that can't be kept.
    """
    shipped = (TEMPLATE / PIPELINE).read_text(encoding="utf-8")
    own, theirs = dvc_yaml.parsed(text, path), dvc_yaml.parsed(shipped)
    others = [name for name in own if name not in theirs]
    gone = [name for name in others if _OURS in str(own[name].get("cmd"))]
    if gone and is_newer:
        raise UserError(f"{path}: this release has no stage {gone[0]}")
    kept = [name for name in others if name not in gone]
    kinds = {
        "new stages": [name for name in theirs if name not in own],
        "stages replaced by those of this release": [
            name for name in theirs if own.get(name, theirs[name]) != theirs[name]
        ],
        "stages that are gone": gone,
    }
    if not any(kinds.values()):
        return text, ()
    kinds["stages of your own, which stay"] = kept
    return _merged(text, shipped, kept, path), tuple(
        f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names
    )


def _merged(text: str, shipped: str, kept: Sequence[str], path: Path) -> str:
    """The shipped ``dvc.yaml`` with stages and sections of another one.

    Args:
        text: of the other one.
        shipped: of the one that ships.
        kept: the stages that are taken from the other one.
        path: where that is.

    Raises:
        UserError: one of them has no lines of its own.
    """
    own, result = YAML(typ="safe").load(text), YAML(typ="safe").load(shipped)
    sections = [name for name in own if name not in result]
    result |= {name: own[name] for name in sections}
    result["stages"] |= {name: own["stages"][name] for name in kept}
    try:
        for name in kept:
            shipped = migration.pasted(shipped, f"stages.{name}", ["", *migration.cut(text, f"stages.{name}")], [])
        for name in sections:
            shipped = migration.pasted(shipped, name, migration.cut(text, name), [])
    except migration.ByHand:
        raise UserError(f"{path}: {name} is not on lines of its own: write it as a block.") from None
    if YAML(typ="safe").load(shipped) != result:
        own = listed([*kept, *sections], 5)
        raise UserError(f"{path} can't be changed automatically: write {own} as plain blocks.")
    return shipped


def write(texts: Mapping[Path, str]) -> None:
    """Write files, all or none of them.

    Raises:
        UserError: a ``dvc.yaml`` is among them and has changes that git does not have, or a file can't be written.
    """
    replaced = (path for path in texts if path.name == PIPELINE.name)
    if changed := next(filter(_is_uncommitted, replaced), None):
        raise UserError(f"{changed} has changes that are not committed, and its stages are replaced: commit it first.")
    before = {path: path.read_bytes() for path in texts}
    try:
        for path, text in texts.items():
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except BaseException:
        for path, content in before.items():
            if path.read_bytes() != content:
                with atomic(path) as temporary:
                    temporary.write_bytes(content)
        raise


def _is_uncommitted(path: Path) -> bool:
    """Whether a file differs from its last commit; without git there is none that could differ."""
    try:
        return bool(git("status", "--porcelain", "--", str(path)))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
