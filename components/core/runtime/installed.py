"""What is installed and decides results: Reflux's code, its defaults, and the releases of packages.

DVC keys each stage by them, as by its params. ``python -m reflux.components.core.runtime.installed`` is the stage
``installed`` of ``dvc.yaml``; the flows call :func:`record`.
"""

import sys
from collections.abc import Collection, Mapping
from functools import reduce
from importlib.metadata import version
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.core import dvc_yaml
from reflux.components.core.artifacts import ARTIFACTS, write_json
from reflux.components.core.contract import STAGES, made
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime.lineage import LOCK, code_by_folder

FILE = ARTIFACTS / "installed.json"
_DIGITS = 16  # of a hash: enough to tell versions apart, and short enough to read in a lock file

Versions = dict[str, str]


def builds(stage: str, ships: str = "auto") -> Versions:
    """The installed packages that decide a stage's result, with their builds, such as torch 2.13.0+cu128.

    They include the runtime of the file that ``ships``, the param of ``compress``, where files are made and measured.

    Raises:
        UserError: that is not installed.
    """
    spec = STAGES[stage]
    formats = [file.format for file in made(ships).values() if file.format.extra] if spec.ships else []
    own = {name: version(name) for name in spec.packages}
    return own | {each.runtime: each.installed(f"compress.ships = {ships}") for each in formats}


def releases(ships: str = "auto") -> dict[str, Versions]:
    """The releases of those packages, stage by stage.

    Without their builds: what a GPU's worker has trained is not trained again by one that has none.
    """
    return {
        stage: {name: build.partition("+")[0] for name, build in builds(stage, ships).items()}
        for stage, spec in STAGES.items()
        if spec.packages
    }


def code(stage: str) -> dict[str, str]:
    """The hashes of the code that decides a stage's result, by folder or file of ``components``, and by extension."""
    return {part: sha256[:_DIGITS] for part, sha256 in code_by_folder(stage).items()}


def defaults(section: BaseModel, names: Collection[str]) -> dict[str, Any]:
    """The defaults that stand in for what ``params.yaml`` leaves out.

    Args:
        section: the params, or a section of them.
        names: what is looked at, such as ``finetune`` or ``pretrain.mode``.

    Returns:
        The values, by their names in full.
    """
    found: dict[str, Any] = {}
    for name in names:
        key, *rest = name.split(".")
        field, info = next(each for each in type(section).model_fields.items() if key in (each[0], each[1].alias))
        value = getattr(section, field)
        if field not in section.model_fields_set:
            value = section.model_dump(mode="json", include={field}, by_alias=True)[key]
            found[name] = reduce(getitem, rest, value)
        elif isinstance(info.annotation, type) and isinstance(value, BaseModel):
            inside = [".".join(rest)] if rest else list(type(value).model_fields)
            found |= {f"{key}.{each}": default for each, default in defaults(value, inside).items()}
    return found


def deciding(params: Params, lock: Path = LOCK, pipeline: str | None = None) -> dict[str, dict[str, Any]]:
    """What DVC keys results by, stage by stage; see :func:`record`.

    Args:
        params: all of them.
        lock: DVC's lock file.
        pipeline: the text of ``dvc.yaml``, if it will be another than it is.

    Raises:
        UserError: ``dvc.yaml`` is missing or lacks a stage, or the runtime of the file that ships is not installed.
    """
    entries, now = dvc_yaml.stages(pipeline), releases(params.compress.ships)
    kept = now if params.run.retrain_on_upgrade else now | _locked(lock)
    own = {name: defaults(params, dvc_yaml.params_of(entries[name])) for name in STAGES}
    parts = {name: {"code": code(name), "defaults": own[name], "packages": kept.get(name, {})} for name in STAGES}
    return {name: {kind: value for kind, value in each.items() if value} for name, each in parts.items()}


def record(params: Params, stages: Collection[str] = tuple(STAGES), lock: Path = LOCK) -> str | None:
    """Write what DVC keys results by.

    Args:
        params: all of them. ``run.retrain_on_upgrade`` wants the releases that are installed, so that what other
            releases have computed is computed again; without it, each stage keeps those that its result in ``dvc.lock``
            was computed with.
        stages: those that run here.
        lock: DVC's lock file.

    Returns:
        A sentence if the results of some of the stages are of other releases than those installed.

    Raises:
        UserError: as for ``deciding``.
    """
    now, kept = releases(params.compress.ships), _locked(lock)
    write_json(FILE, deciding(params, lock))
    changes = {
        f"{name} {kept[stage][name]} is now {release}"
        for stage in stages
        for name, release in now.get(stage, {}).items()
        if kept.get(stage, {}).get(name, release) != release
    }
    if not changes:
        return None
    retrain = params.run.retrain_on_upgrade
    fate = "not used (run.retrain_on_upgrade)" if retrain else "kept, as run.retrain_on_upgrade is false"
    return f"{', '.join(sorted(changes))}: results of the old release are {fate}."


def _locked(lock: Path) -> dict[str, Versions]:
    """The releases that ``dvc.lock`` has results of, stage by stage."""
    return {name: each["packages"] for name, each in _noted(lock).items() if "packages" in each}


def locked_defaults(lock: Path = LOCK) -> dict[str, Any]:
    """The defaults that stood in for what ``params.yaml`` left out when the results in ``dvc.lock`` were computed."""
    return {name: value for each in _noted(lock).values() for name, value in each.get("defaults", {}).items()}


def _noted(lock: Path) -> dict[str, Mapping[str, Any]]:
    """What ``dvc.lock`` has of ``FILE``, stage by stage; DVC itself says if it can't be read."""
    try:
        stages: Any = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"]
        return {name: stage.get("params", {}).get(str(FILE), {}).get(name, {}) for name, stage in stages.items()}
    except (FileNotFoundError, YAMLError, ValueError, TypeError, KeyError, AttributeError):
        return {}


if __name__ == "__main__":
    try:
        record(load_params())
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
