"""The stages as ``dvc.yaml`` of the working folder, the project's, has them."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reflux.components.core.errors import NO_PROJECT, UserError

PIPELINE = Path("dvc.yaml")


def stages() -> dict[str, dict[str, Any]]:
    """The entries of the stages, by name.

    Raises:
        UserError: there is no such file here.
    """
    try:
        text = PIPELINE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{PIPELINE} is missing in {Path.cwd().name}/: {NO_PROJECT}.") from None
    return dict(YAML(typ="safe").load(text)["stages"])


def reads(stage: dict[str, Any]) -> list[str]:
    """What a stage reads: its deps, and what stands behind one of them."""
    return [*stage["deps"], *stage.get("meta", {}).get("reads", [])]


def params_of(stage: dict[str, Any]) -> list[str]:
    """The names of the params of ``params.yaml`` that a stage depends on."""
    return [each for each in stage.get("params", []) if isinstance(each, str)]
