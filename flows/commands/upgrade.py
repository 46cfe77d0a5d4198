"""``reflux upgrade``: bring a project that another release made to the installed one."""

import contextlib
import os

from ruamel.yaml import YAML

from reflux.components.core.dvc_yaml import PIPELINE
from reflux.components.core.errors import UserError
from reflux.components.core.params.file import PARAMS, check_params
from reflux.components.core.project import root
from reflux.components.core.runtime.lineage import LOCK
from reflux.flows.local.environment import only_run, reflux_command
from reflux.flows.repo import remote
from reflux.flows.repo.changes import foresee
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.upgrade import Upgrade, find_upgrade, folders, write


def upgrade(check: bool) -> int:
    """Say what an upgrade changes in the project's root and its pipelines, and carry it out.

    Args:
        check: say it only.

    Returns:
        0, or 1 if there was something to change and ``check`` left it.

    Raises:
        UserError: as for :func:`reflux.flows.repo.upgrade.find_upgrade` and ``write``; nothing has changed.
    """
    os.chdir(root())
    found = find_upgrade()
    if not found.texts:
        print(f"Nothing to do: this project is of Reflux {found.now}, which is installed.")
        return 0
    _show(found)
    if check:
        print(f"Nothing has been written. `{reflux_command()} upgrade` does it.")
        return 1
    with only_run():
        write(found.texts)
    print(f"This project is of Reflux {found.now} now; `git diff` shows each line.\nNext: {reflux_command()} run")
    return 0


def _show(found: Upgrade) -> None:
    for path, notes in found.notes.items():
        print(path, *(f"  {note}" for note in notes), "", sep="\n")
    for folder in folders():
        if (folder / LOCK).exists():
            texts = [found.texts.get(folder / name) for name in (PARAMS, PIPELINE)]
            with contextlib.chdir(folder):
                lines = _next_run(*texts)
            of = f" of {folder}" if folder.name else ""
            print(f"The next run{of}", *(f"  {line}" for line in lines), "", sep="\n")


def _next_run(text: str | None, pipeline: str | None) -> list[str]:
    """What the next run here will do with each stage, and why, as ``reflux plan`` would say it after the upgrade.

    Args:
        text: of ``params.yaml``, if it changes.
        pipeline: of ``dvc.yaml``, if it changes.
    """
    text = text or PARAMS.read_text(encoding="utf-8")
    params = check_params(YAML(typ="safe").load(text), str(PARAMS))
    prepare_dvc()
    try:
        changes = foresee(text, params, remote.name(), pipeline).changes
    except UserError as error:
        return [f"can't be foreseen here: {error}"]
    lines = [f"{name} {each.fate}: {'; '.join(each.why)}" for name, each in changes.items() if each.fate != "unchanged"]
    return lines or ["computes nothing: all results are those of this release"]
