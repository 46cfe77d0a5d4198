"""``reflux data add PATH --pipeline NAME``: a pipeline of its own for a dataset, in ``pipelines/NAME``."""

import contextlib
import shutil
from pathlib import Path

from reflux.components.core.dvc_yaml import PIPELINE
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import PARAMS, load_params
from reflux.components.core.project import PIPELINES, pipelines, root
from reflux.flows.commands.data import add
from reflux.flows.commands.new import NAME
from reflux.flows.local.pipelines import folder
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.upgrade import TEMPLATE


def add_to(
    pipeline: str, path: Path, name: str | None, minutes: float, max_kb: float | None, min_accuracy: float | None
) -> str:
    """Add a dataset to a pipeline, which is made if there is none of that name.

    Args:
        pipeline: its name, also of its experiment and, with ``-student``, of its registered model.
        path: the dataset's folder or file, as for ``add``.
        name: as for ``add``.
        minutes: as for ``add``.
        max_kb: as for ``add``.
        min_accuracy: as for ``add``.

    Returns:
        The message for the user.

    Raises:
        UserError: the name is no pipeline's, this is no project, or the dataset is refused; nothing is left.
    """
    path = path.resolve()
    if pipeline in pipelines():
        with contextlib.chdir(folder(pipeline)):
            return add(path, name, minutes, max_kb, min_accuracy)
    if not NAME.fullmatch(pipeline):
        raise UserError(f"{pipeline} can't name a pipeline: begin with a letter or digit, go on with those, - and _.")
    target = root() / PIPELINES / pipeline
    if target.exists():
        raise UserError(f"{target} is no pipeline, as it has no {PARAMS}: choose another name, or remove it.")
    dvc = (root() / ".dvc").absolute()
    first = not dvc.is_dir()
    if first:
        load_params()
    partial = target.with_name(f".{pipeline}-partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    try:
        if first:
            prepare_dvc()  # by which a folder below knows the project's root
        partial.mkdir(parents=True)
        for file in (PARAMS, PIPELINE):
            shutil.copy(TEMPLATE / file, partial)
        with contextlib.chdir(partial):
            added = add(path, name, minutes, max_kb, min_accuracy, pipeline)
        partial.rename(target)
    except BaseException:
        if first:
            shutil.rmtree(dvc, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in it
            target.parent.rmdir()
    return f"{PIPELINES / pipeline} is a new pipeline: commit it. The paths below start in its folder.\n{added}"
