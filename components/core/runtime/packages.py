"""The versions of the packages that decide results: DVC keys each stage by them, as by its params.

``python -m reflux.components.core.runtime.packages`` is the stage ``packages`` of ``dvc.yaml``; the flows call
:func:`record`.
"""

import sys
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.core.artifacts import ARTIFACTS, write_json
from reflux.components.core.contract import STAGES, made
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.extras import installed
from reflux.components.core.params.file import load_params
from reflux.components.core.runtime.lineage import LOCK

FILE = ARTIFACTS / "packages.json"

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
    return own | {each.runtime: installed(each, f"compress.ships = {ships}") for each in formats}


def releases(ships: str = "auto") -> dict[str, Versions]:
    """The releases of those packages, stage by stage.

    Without their builds: what a GPU's worker has trained is not trained again by one that has none.
    """
    return {
        stage: {name: build.partition("+")[0] for name, build in builds(stage, ships).items()}
        for stage, spec in STAGES.items()
        if spec.packages
    }


def deciding(retrain: bool, ships: str = "auto", lock: Path = LOCK) -> dict[str, Versions]:
    """The releases that DVC keys results by, stage by stage; see :func:`record`."""
    return releases(ships) if retrain else releases(ships) | _locked(lock)


def record(
    retrain: bool, ships: str = "auto", stages: Collection[str] = tuple(STAGES), lock: Path = LOCK
) -> str | None:
    """Write the releases that DVC keys results by.

    Args:
        retrain: ``run.retrain_on_upgrade``: those that are installed, so that what other releases have computed is
            computed again. False keeps, for each stage, those that its result in ``dvc.lock`` was computed with.
        ships: ``compress.ships``.
        stages: those that run here.
        lock: DVC's lock file.

    Returns:
        A sentence if the results of some of the stages are of other releases than those installed.
    """
    installed, kept = releases(ships), _locked(lock)
    write_json(FILE, deciding(retrain, ships, lock))
    changes = {
        f"{name} {kept[stage][name]} is now {release}"
        for stage in stages
        for name, release in installed.get(stage, {}).items()
        if kept.get(stage, {}).get(name, release) != release
    }
    if not changes:
        return None
    fate = "not used (run.retrain_on_upgrade)" if retrain else "kept, as run.retrain_on_upgrade is false"
    return f"{', '.join(sorted(changes))}: results of the old release are {fate}."


def _locked(lock: Path) -> dict[str, Versions]:
    """The releases that ``dvc.lock`` has results of, stage by stage; DVC itself says if it can't be read."""
    try:
        document: Any = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))
        stages: dict[str, Any] = document["stages"]
    except (FileNotFoundError, YAMLError, TypeError, KeyError):
        return {}
    noted = {name: stage.get("params", {}).get(str(FILE), {}) for name, stage in stages.items()}
    return {name: versions[name] for name, versions in noted.items() if name in versions}


if __name__ == "__main__":
    try:
        params = load_params()
        record(params.run.retrain_on_upgrade, params.compress.ships)
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
