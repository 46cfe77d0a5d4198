"""The project's root folder and its pipelines.

The root may be a pipeline itself. Each further one is a folder ``pipelines/NAME`` with its own ``params.yaml``,
``dvc.yaml``, ``dvc.lock``, ``artifacts`` and ``.reflux``. Data, extensions, DVC's cache, MLflow's database and
schedules are the root's.
"""

from pathlib import Path

PIPELINES = Path("pipelines")
_NOWHERE = "run reflux in the project's root folder, or make a project: `reflux new NAME`"


def root(folder: Path = Path()) -> Path:
    """The root of the project that a folder, by default the working one, is or has a pipeline of: ``../..`` there."""
    here = folder.absolute()
    above = here.parent.parent
    pipeline = here.parent.name == PIPELINES.name and (above / ".dvc").is_dir() and not (here / ".dvc").is_dir()
    return folder / "../.." if pipeline else folder


def pipelines() -> list[str]:
    """The names of the pipelines below the root, sorted."""
    return sorted(file.parent.name for file in (root() / PIPELINES).glob("[!.]*/params.yaml"))


def instead() -> str:
    """What to do in a folder that is no pipeline, as the end of a sentence."""
    names = pipelines()
    return f"choose a pipeline with --pipeline: {', '.join(names)}" if names else _NOWHERE
