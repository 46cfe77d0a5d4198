"""``reflux data list | use``: several datasets in one checkout, of which one is active.

The active dataset's params are ``params.yaml``; those of each other one rest in ``data/<name>.params.yaml``. What was
computed for a dataset is restored by DVC's run cache once it is active again.
"""

import os
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reflux.components.core.artifacts import atomic
from reflux.components.core.errors import UserError, listed
from reflux.components.core.params.file import PARAMS, load_params
from reflux.components.core.params.sections import Params
from reflux.flows.local.environment import only_run, reflux_command
from reflux.flows.report.display import console

DATA = Path("data")
_SUFFIX = ".params.yaml"


def use(name: str) -> str:
    """Make another dataset's params the active ones; those of the present one are kept.

    Returns:
        The message for the user.

    Raises:
        UserError: no such dataset has params, they are not valid, or a run is in progress. Nothing has changed.
    """
    active = _name(load_params())
    if name == active:
        return f"{name} is active already: {PARAMS} has its params."
    if not _rested(name).is_file():
        known = listed(list(_datasets()), 10)
        raise UserError(f"No dataset {name} has params here (there are {known}): add it with `reflux data add PATH`.")
    load_params(_rested(name))
    with only_run():
        keep_active(name)
        os.replace(_rested(name), PARAMS)
    return (
        f"{PARAMS} has the params of {name}; those of {active} are in {_rested(active)}.\nNext: {reflux_command()} run"
    )


def keep_active(successor: str) -> None:
    """Copy the active params to where they rest while another dataset, the successor, is active.

    Raises:
        UserError: those of another dataset rest there, or the folder can't be written to.
    """
    params = load_params()
    name = _name(params)
    if name == successor:
        return
    rested = _rested(name)
    if rested.is_file() and load_params(rested).ingest.source != params.ingest.source:
        raise UserError(f"{rested} has the params of another dataset than {params.ingest.source}: move it away.")
    with atomic(rested) as temporary:
        temporary.write_bytes(PARAMS.read_bytes())


def resting_place() -> Path:
    """Where the active params rest while another dataset is active."""
    return _rested(_name(load_params()))


def show() -> None:
    """Print the datasets that have params in this checkout, by name.

    Raises:
        UserError: some params are not valid.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "dataset", "ingest.source", "registry.model_name"):
        table.add_column(column, overflow="fold")
    for name, path in _datasets().items():
        params = load_params(path)
        mark = "*" if path == PARAMS else ""
        table.add_row(*map(Text, (mark, name, params.ingest.source, params.registry.model_name)))
    console().print(table)


def _datasets() -> dict[str, Path]:
    """The file that has each dataset's params, by name."""
    rested = {path.name.removesuffix(_SUFFIX): path for path in DATA.glob(f"[!.]*{_SUFFIX}")}
    return dict(sorted((rested | {_name(load_params()): PARAMS}).items()))


def _name(params: Params) -> str:
    return Path(params.ingest.source).name


def _rested(name: str) -> Path:
    return DATA / f"{name}{_SUFFIX}"
