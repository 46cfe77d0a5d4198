"""``reflux doctor``: what the pipeline needs, whether it is there, and how to mend it."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from components.core import lineage
from components.core import params as parameters
from components.core.errors import EXIT_USER_ERROR, UserError
from components.core.journal import OUTBOX
from components.registry import hooks
from flows.data import fetch
from flows.display import people
from flows.environment import embed_mlflow, in_git
from flows.server import reachable
from flows.stages import usable_cores

_PACKAGES = ("torch", "timm", "onnxruntime", "mlflow", "prefect", "dvc", "great-expectations")
_LOW_DISK = 2 * 2**30
_MARKS = {True: "[green]ok[/]", False: "[yellow]look[/]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: what was looked at.
        found: what is there.
        mend: how to mend it; empty when all is well.
    """

    what: str
    found: str
    mend: str = ""


def examine() -> int:
    """Print the report.

    Returns:
        0, or 2 when something keeps the pipeline from running as it should.
    """
    findings = [*_software(), *_machine(), *_project(), *_servers()]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "what", "found", "how to mend it"):
        table.add_column(column)
    for finding in findings:
        table.add_row(_MARKS[not finding.mend], finding.what, finding.found, finding.mend)
    people().print(table)
    return EXIT_USER_ERROR if any(finding.mend for finding in findings) else 0


def _software() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", python, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")
    for package in _PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield Finding(package, "not installed", "make setup")


def _machine() -> Iterator[Finding]:
    import torch

    linux = sys.platform == "linux"
    yield Finding("system", sys.platform, "" if linux else "reflux run needs Linux: use WSL or a container")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    yield Finding("device", f"{usable_cores()} CPU cores, {gpu}")
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("free disk", f"{free / 2**30:.1f} GB", "" if free > _LOW_DISK else "free some space: 2 GB are little")
    writable = os.access(Path.cwd(), os.W_OK)
    yield Finding("this folder", "writable" if writable else "read-only", "" if writable else "make it writable")


def _project() -> Iterator[Finding]:
    try:
        params = parameters.load()
        yield Finding("params.yaml", f"project {params.project.name}")
        fetch(params.ingest.source)
        yield Finding("dataset", params.ingest.source)
        gates = params.registry.gates.model_dump(exclude_none=True)
        none = "" if gates else "set registry.gates: without one nothing is promoted"
        yield Finding("gates", ", ".join(gates) or "none", none)
    except UserError as error:
        yield Finding("params.yaml, dataset", "refused", str(error))
    code = lineage.code()
    dirty = ", with changes that are not committed" if code.dirty else ""
    yield Finding("git", f"{code.sha[:7]}{dirty}", code.missing or "")
    yield Finding("dvc", ("with git" if in_git() else "without git") + (", .dvc" if Path(".dvc").is_dir() else ""))


def _servers() -> Iterator[Finding]:
    uri = embed_mlflow()
    yield Finding("MLflow", uri.split("@")[-1], _mlflow_problem(uri))
    api = os.environ.get("PREFECT_API_URL")
    away = api is not None and not reachable(api)
    mend = "start the server, or unset PREFECT_API_URL to use the embedded one" if away else ""
    yield Finding("Prefect", api or "embedded, starts with reflux run", mend)
    waiting = len(list(OUTBOX.glob("*/journal.jsonl")))
    mend = "the next reflux run sends them, once MLflow answers" if waiting else ""
    yield Finding("undelivered runs", str(waiting), mend)
    yield Finding("hooks", ", ".join(r.name for r in hooks.receivers()) or "none", " ".join(hooks.problems()))
    unsent = len(hooks.waiting())
    mend = "the next reflux command sends them, once the receiver takes them" if unsent else ""
    yield Finding("unsent events", str(unsent), mend)


def _mlflow_problem(uri: str) -> str:
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return ""
    from components.registry import server

    try:
        with server.speaking():
            server.client().search_experiments(max_results=1)
    except UserError as error:
        return str(error)
    return ""
