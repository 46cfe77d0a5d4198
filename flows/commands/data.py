"""``reflux data add``: a dataset is copied, put under DVC, and made the one the pipeline runs on."""

import itertools
import json
import re
import shutil
from pathlib import Path

from ruamel.yaml import YAML

from components.core.errors import UserError
from components.core.params.file import load_params, override_params
from flows.local.environment import reflux_command
from flows.repo.checkout import prepare_dvc
from flows.repo.dataset import track

DATA = Path("data")
_IMAGES_CHECKED = 200


def add(path: Path, name: str | None) -> str:
    """Copy a dataset to ``data/<name>``, put it under DVC, and point ``params.yaml`` at it.

    A folder that is already in ``data/`` stays where it is. Project and registered model are renamed with it,
    because a champion of another dataset is no fair comparison.

    Args:
        path: the dataset's folder.
        name: its name in ``data/``; by default the folder's own.

    Returns:
        The message for the user: the dataset, and what to do next.

    Raises:
        UserError: it is no dataset, it contains this project, the name is in use, or DVC refuses it. Nothing is left
            half-done.
    """
    from components.ingest.source import open_source

    load_params()
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of your dataset.")
    if path.is_file():
        raise UserError(f"{path} is a file: give the folder that contains it and its images.")
    if any(folder.resolve().is_relative_to(path.resolve()) for folder in (Path(), DATA)):
        raise UserError(f"{path} contains this project's data folder: give the folder of your dataset alone.")
    dataset = open_source(path)
    if len(dataset.classes) < 2:
        classes = ", ".join(dataset.classes) or "none"
        raise UserError(f"{path} has fewer than two classes ({classes}): a classifier needs at least two.")
    prepare_dvc()
    inside = path.resolve().parent == DATA.resolve()
    name = path.name if inside else _slug(name or path.resolve().name)
    target = DATA / name
    print(f"Adding {dataset.count:,} images to DVC in {target} …", flush=True)
    if not inside:
        _copy(path, target)
    try:
        tracked = track(target)
        color = _has_color(path)
        _point_at(target, color)
    except BaseException:
        if not inside:
            shutil.rmtree(target)
        raise
    channels = "color" if color else "gray"
    return (
        f"{target}: {dataset.count:,} images ({channels}), {len(dataset.classes)} classes; {tracked}\n"
        "params.yaml now has its ingest.source, ingest.channels, project.name and registry.model_name; check "
        f"ingest.image_size, student.image_size and registry.gates.\nNext: {reflux_command()} run"
    )


def _copy(path: Path, target: Path) -> None:
    if target.exists():
        raise UserError(f"{target} exists: choose another name with `--name`, or remove it.")
    partial = target.with_name(f".{target.name}-partial")
    try:
        shutil.copytree(path, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _point_at(target: Path, color: bool) -> None:
    values = {
        "ingest.source": str(target),
        "ingest.channels": "3" if color else "1",
        "project.name": _text(target.name),
        "registry.model_name": _text(f"{_slug(target.name)}-student"),
    }
    override_params([f"{key}={value}" for key, value in values.items()])


def _has_color(path: Path) -> bool:
    """Whether any of the first images has color. Gray photographs are often stored as RGB, so pixels decide."""
    from components.core.images.pixels import UnreadableImage, decode
    from components.ingest.source import open_source

    for item in itertools.islice(open_source(path).items, _IMAGES_CHECKED):
        try:
            data = item.data if isinstance(item.data, bytes) else item.data.read_bytes()
            pixels = decode(data, 3, 64, 50).pixels
        except (UnreadableImage, OSError):
            continue
        if (pixels.max(axis=2) != pixels.min(axis=2)).any():
            return True
    return False


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    if not slug:
        raise UserError(f"{name!r} can't name a dataset: choose a name of letters and digits with `--name`.")
    return slug


def _text(value: str) -> str:
    """A text as YAML, quoted only where YAML would read something else."""
    return value if isinstance(YAML(typ="safe").load(value), str) else json.dumps(value)
