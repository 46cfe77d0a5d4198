"""``reflux gc``: show what nothing refers to any more, ask, and remove it."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.prompt import Confirm
from rich.table import Table

from reflux.components.advice.tune.result import RESULT
from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.params.file import PARAMS, load_params
from reflux.components.core.params.sections import Params
from reflux.components.core.project import PIPELINES, pipelines, root
from reflux.components.observe.monitor import report as monitor
from reflux.components.registry import client
from reflux.components.registry.unused import runs as unused
from reflux.components.registry.unused.references import References, references
from reflux.components.registry.unused.runs import Unused
from reflux.flows.commands.registry import registry_params
from reflux.flows.local import leftovers
from reflux.flows.local.environment import HOME, idle_homes, only_run
from reflux.flows.local.prefect_server import prefect_server
from reflux.flows.repo import cache
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.report.display import console

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Row:
    """Things of a kind that can be removed.

    Attributes:
        what: their kind, in the plural.
        size: bytes on this machine's disk; None if unknown.
        why: they can go.
    """

    what: str
    count: int
    size: int | None
    why: str


@dataclass(frozen=True)
class Part:
    """Rows that are removed together; a part that was broken off is finished by the next call."""

    rows: Sequence[Row]
    remove: Callable[[], None]


def collect(older_than: timedelta, dry_run: bool, yes: bool) -> None:
    """Print what can be removed and, unless it is a dry run or a person says no, remove it.

    No run of this machine is in progress meanwhile.

    Args:
        older_than: the age that everything must have.
        dry_run: only print.
        yes: ask nobody.

    Raises:
        UserError: a run is in progress, MLflow does not answer, or something can't be read, and nothing was removed.
    """
    params, before = registry_params(), datetime.now(UTC) - older_than
    with only_run(), idle_homes(params.project.name) as of_workers, _prefect() as embedded:
        if (root() / ".dvc").is_dir():
            prepare_dvc()
        parts = [*_parts(params, [HOME, *of_workers], before, embedded)]
        rows = [row for part in parts for row in part.rows if row.count]
        if folder := cache.shared():
            print(f"DVC's cache stays, as other projects may use {folder}: what they need nobody knows here.")
        if not rows:
            print(f"Nothing to remove: all that is from before {before:%Y-%m-%d} is referred to.")
            return
        console().print(_table(rows))
        if dry_run:
            print("\nNothing was removed, as this is a dry run.")
        elif yes or not sys.stdin.isatty() or Confirm.ask("\nRemove all of this?", default=False):
            for part in parts:
                if any(row.count for row in part.rows):
                    part.remove()
            print("\nRemoved.")
        else:
            print("Nothing was removed.")


@contextmanager
def _prefect() -> Iterator[bool | None]:
    """Have Prefect answer during the block; yields whether its server is the project's own, None if there is none."""
    named = os.environ.get("PREFECT_API_URL")
    if not named and not (HOME / "prefect" / "prefect.db").is_file():
        yield None
        return
    with prefect_server() as server:
        if server is not None:
            server.wait()
        yield not named


def _parts(params: Params, homes: list[Path], before: datetime, embedded: bool | None) -> Iterator[Part]:
    """What can go. Flow runs come before the runs in MLflow, which say of some whose they are."""
    mlflow = client.connect()
    with client.translate_errors():
        kept = references(mlflow, params.project.name, params.registry.model_name, _named_weights())
    checkpoints = leftovers.checkpoints(homes, before)
    why = f"of training that was interrupted before {before:%Y-%m-%d} and never resumed"
    row = Row("checkpoints", len(checkpoints), leftovers.size(checkpoints), why)
    yield Part([row], lambda: leftovers.remove(checkpoints))
    stores = leftovers.soft_labels(homes, kept.soft_labels | _present_soft_labels(), before)
    row = Row("stores of soft labels", len(stores), leftovers.size(stores), "of no version, search or present run")
    yield Part([row], lambda: leftovers.remove(stores))
    if embedded is not None:
        yield _in_prefect(mlflow, params, kept, before, embedded)
    yield _in_mlflow(mlflow, params, kept, before)
    files = cache.unused(kept.data, kept.commits, before)
    why = f"of no version, branch or tag, and of no commit or run since {before:%Y-%m-%d}"
    row = Row("files in DVC's cache", len(files), leftovers.size(files), why)
    yield Part([row], lambda: cache.collect(kept.data, kept.commits, before))


def _in_prefect(mlflow: "MlflowClient", params: Params, kept: References, before: datetime, embedded: bool) -> Part:
    from reflux.flows.pipeline import flow_runs  # Prefect reads where its server is when it is imported

    with client.translate_errors():
        own = None if embedded else unused.flow_runs(mlflow, _experiments(params.project.name))
    found = flow_runs.unused(params.project.name, own, kept.flow_runs, before)
    row = Row("flow runs in Prefect", len(found), None, f"ended before {before:%Y-%m-%d}, and made no version")
    return Part([row], lambda: flow_runs.delete(found))


def _experiments(project: str) -> list[str]:
    return [project, monitor.experiment(project)]


def _in_mlflow(mlflow: "MlflowClient", params: Params, kept: References, before: datetime) -> Part:
    project, model_name = params.project.name, params.registry.model_name
    experiments = _experiments(project)

    def found(kept: References) -> Unused:
        return unused.find(mlflow, experiments, kept, _present_runs(), before)

    def find_again() -> Unused:
        return found(references(mlflow, project, model_name, _named_weights()))

    def remove() -> None:
        unused.mark(mlflow, model_name, find_again)
        unused.purge(mlflow, unused.marked(mlflow, experiments))

    with client.translate_errors():
        new, begun = found(kept), unused.marked(mlflow, experiments)
    runs, models = [*new.runs, *begun.runs], [*new.models, *begun.models]
    until = "; a server frees their files by `mlflow gc`" if unused.is_server(mlflow) else ""
    sizes = (unused.size(run.info.artifact_uri for run in runs), unused.size(m.artifact_location for m in models))
    return Part(
        [
            Row("runs in MLflow", len(runs), sizes[0], f"of no version, open promotion, search or present run{until}"),
            Row("models in MLflow", len(models), sizes[1], f"of no version{until}"),
        ],
        remove,
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("what")
    for column in ("how many", "size"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for row in rows:
        table.add_row(row.what, f"{row.count:,}", "unknown" if row.size is None else decimal(row.size), row.why)
    return table


def _named_weights() -> set[str]:
    """The weights that the params of the project's pipelines name.

    Raises:
        UserError: one of them has wrong params.
    """
    files = [root() / PARAMS, *(root() / PIPELINES / name / PARAMS for name in pipelines())]
    every = [load_params(file) for file in files if file.is_file()]
    return {name for each in every for name in (each.pretrain.weights, each.student.weights, *each.distill.teachers)}


def _present_runs() -> set[str]:
    """The runs that made the present artifacts, which the next run may link."""
    made = (read_json(file).get("mlflow_run_id") for file in ARTIFACTS.glob("*/run.json"))
    return {run_id for run_id in made if run_id}


def _present_soft_labels() -> set[str]:
    """The keys of the stores that the present artifacts and the last search are of."""
    manifest = ARTIFACTS / "label" / "manifest.json"
    keys = [read_json(file).get(name) for file, name in ((manifest, "key"), (RESULT, "store")) if file.is_file()]
    return {key for key in keys if key}
