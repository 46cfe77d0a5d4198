"""The stages as ``dvc.yaml`` of the working folder, a pipeline's, has them."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.core.contract import STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.project import instead

PIPELINE = Path("dvc.yaml")


def stages(pipeline: str | None = None) -> dict[str, dict[str, Any]]:
    """The entries of the stages, by name.

    Args:
        pipeline: the file's text, if it will be another than it is.

    Raises:
        UserError: there is no such file here, it is not valid, or it is of an older release and lacks a stage.
    """
    entries = parsed(pipeline or text())
    if missing := [name for name in ("installed", *STAGES) if name not in entries]:
        raise UserError(f"{PIPELINE} lacks the stage {missing[0]} of this release: `reflux upgrade` adds it.")
    return entries


def text(path: Path = PIPELINE) -> str:
    """The content of the file.

    Raises:
        UserError: there is no such file here, or it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing in {Path.cwd().name}/: {instead()}.") from None
    except UnicodeDecodeError:
        raise _invalid(path) from None


def parsed(pipeline: str, path: Path = PIPELINE) -> dict[str, dict[str, Any]]:
    """The entries of the stages of a ``dvc.yaml`` of any release, by name.

    Args:
        pipeline: its text.
        path: where it is, for the error.

    Raises:
        UserError: it is not valid.
    """
    try:
        return dict(YAML(typ="safe").load(pipeline)["stages"])
    except (YAMLError, ValueError, TypeError, KeyError):
        raise _invalid(path) from None


def _invalid(path: Path) -> UserError:
    restore = f"`git checkout {path}`"
    return UserError(f"{path} is not valid YAML with stages: correct it, or restore it with {restore}.")


def reads(stage: dict[str, Any]) -> list[str]:
    """What a stage reads: its deps, and what stands behind one of them."""
    return [*stage["deps"], *stage.get("meta", {}).get("reads", [])]


def params_of(stage: dict[str, Any]) -> list[str]:
    """The names of the params of ``params.yaml`` that a stage depends on."""
    return [each for each in stage.get("params", []) if isinstance(each, str)]
