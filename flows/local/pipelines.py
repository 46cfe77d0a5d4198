"""Work in one of the project's pipelines, which share data and servers and nothing else."""

import os
import re
from pathlib import Path

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import PARAMS, load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.project import PIPELINES, pipelines, root


def current() -> str:
    """The name of the working folder's pipeline; empty in the project's root."""
    return Path.cwd().name if root() != Path() else ""


def folder(name: str) -> Path:
    """The folder of a pipeline.

    Raises:
        UserError: there is none of that name.
    """
    known = pipelines()
    if name not in known:
        there = f"those of this project are {', '.join(known)}" if known else "this project has none below its root"
        raise UserError(f"No pipeline is called {name}: {there}; `reflux data add PATH --pipeline {name}` makes it.")
    return root() / PIPELINES / name


def enter(name: str) -> None:
    """Make the folder of a pipeline the working folder; an empty name stays here.

    Raises:
        UserError: there is none of that name.
    """
    if name:
        os.chdir(folder(name))


def suffixed(name: str) -> str:
    """The name of a deployment that belongs to the working folder's pipeline."""
    return "-".join(filter(None, [name, current()]))


def artifact_key(name: str) -> str:
    """The key, of an artifact in Prefect, that belongs to the working folder's pipeline."""
    return re.sub(r"[^a-z0-9-]", "-", suffixed(name).lower())  # Prefect takes no other characters


def refuse_shared_names(params: Params) -> None:
    """Refuse a pipeline with the experiment or the registered model of another one of its project.

    Raises:
        UserError: another pipeline has the same name for one of them, so that their runs or versions would be mixed.
    """
    here = current()
    files = {name: root() / PIPELINES / name / PARAMS for name in pipelines()} | {"": root() / PARAMS}
    for name, file in files.items():
        if name == here or not file.is_file():
            continue
        try:
            other = load_params(file)
        except UserError:  # its own runs say so
            continue
        model = params.registry.model_name
        same = [f"project.name = {params.project.name}"] * (other.project.name == params.project.name)
        if same := [*same, *[f"registry.model_name = {model}"] * (other.registry.model_name == model)]:
            other_file = (PIPELINES / name if name else Path()) / PARAMS
            raise UserError(f"{other_file} has {same[0]}, too: give each pipeline one of its own.")
