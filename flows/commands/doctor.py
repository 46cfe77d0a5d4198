"""``reflux doctor``: check everything the pipeline needs, and say how to fix what is missing."""

import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params import extensions, releases
from reflux.components.core.params.file import load_params
from reflux.components.core.project import root
from reflux.components.core.runtime import lineage
from reflux.components.core.runtime.journal import OUTBOX
from reflux.components.core.runtime.machine import usable_cores
from reflux.components.registry import webhooks
from reflux.components.registry.versions import signatures
from reflux.flows.commands.servers import doctor_servers
from reflux.flows.commands.servers.doctor_servers import Finding
from reflux.flows.local.environment import embed_mlflow, reflux_command
from reflux.flows.repo.checkout import in_git
from reflux.flows.repo.dataset import fetch
from reflux.flows.report.display import console

_PACKAGES = ("reflux", "torch", "timm", "onnxruntime", "mlflow", "prefect", "dvc", "great-expectations")
_MARKS = {True: "[green]ok[/]", False: "[yellow]look[/]"}


def examine() -> int:
    """Print the report.

    Returns:
        0, or 2 when something would keep the pipeline from running properly.
    """
    findings = [*_software(), *_machine(), *_project(), *_servers()]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "what", "found", "how to fix it"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(_MARKS[not finding.fix], finding.what, finding.observed, finding.fix)
    console().print(table)
    return EXIT_USER_ERROR if any(finding.fix for finding in findings) else 0


def _software() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", python, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")
    for package in _PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield Finding(package, "not installed", "install Reflux again, with what it depends on")


def _machine() -> Iterator[Finding]:
    linux = sys.platform == "linux"
    yield Finding("system", sys.platform, "" if linux else "reflux run needs Linux: use WSL or a container")
    yield Finding("CPU", f"{usable_cores()} cores")
    yield _gpu()
    yield doctor_servers.disk("this disk", Path.cwd())
    yield doctor_servers.disk("temporary files", Path(tempfile.gettempdir()))
    writable = os.access(Path.cwd(), os.W_OK)
    yield Finding("this folder", "writable" if writable else "read-only", "" if writable else "make it writable")


def _project() -> Iterator[Finding]:
    try:
        params = load_params()  # refuses those of a newer release
        yield Finding("params.yaml", f"project {params.project.name}")
        yield from _release()
        fetch(params.datasets)
        yield Finding("dataset", params.ingest.source)
        yield Finding("extensions", ", ".join(each.name for each in extensions.found()) or "none")
        gates = params.registry.gates.model_dump(exclude_none=True)
        none = "" if gates else "set registry.gates: without a gate nothing is promoted"
        yield Finding("gates", ", ".join(gates) or "none", none)
    except UserError as error:
        yield Finding("params.yaml, dataset", "refused", str(error))
    code = lineage.code()
    dirty = ", with uncommitted changes" if code.dirty else ""
    yield Finding("git", f"{code.sha[:7]}{dirty}", code.missing or "")
    yield Finding("dvc", ("with git" if in_git() else "without git") + (", .dvc" if (root() / ".dvc").is_dir() else ""))


def _release() -> Iterator[Finding]:
    """The release that the project asks for, if it names one, and whether it is older than the installed one."""
    if (wanted := releases.requirement_of(root() / releases.PROJECT)) is not None:
        now = version("reflux")
        older = not wanted.specifier.contains(now, prereleases=True)
        fix = f"{now} is installed: {reflux_command()} upgrade brings the project to it" if older else ""
        yield Finding("project's release", str(wanted), fix)


def _gpu() -> Finding:
    """Whether torch can compute on the GPU: one that can't is only noticed after a night."""
    import torch

    if not torch.cuda.is_available():
        driver = Path("/proc/driver/nvidia/version").is_file()
        fix = f"torch {torch.__version__} can't use it: install a build for CUDA, or correct CUDA_VISIBLE_DEVICES"
        return Finding("GPU", "a driver, but none for torch" if driver else "none", fix if driver else "")
    try:
        ones = torch.ones(64, 64, device="cuda")
        right = bool(((ones @ ones) == 64).all())
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        name, reason = torch.cuda.get_device_name(0), str(error).splitlines()[0]
        return Finding("GPU", name, f"it can't compute ({reason}): see which process uses it (nvidia-smi), or reboot")
    memory = f"{torch.cuda.get_device_name(0)}, {free / 2**30:.0f} of {total / 2**30:.0f} GB free"
    return Finding("GPU", memory, "" if right else "it computes wrong results: take it out of service")


def _servers() -> Iterator[Finding]:
    try:
        uri = embed_mlflow()
    except UserError as error:
        yield Finding("MLflow", "refused", str(error))
    else:
        if uri.startswith("http"):
            yield from doctor_servers.mlflow(uri, _project_name())
        else:
            yield Finding("MLflow", uri.split("@")[-1], _mlflow_problem(uri))
    api = os.environ.get("PREFECT_API_URL")
    if api:
        yield from doctor_servers.prefect(api)
    else:
        yield Finding("Prefect", "embedded: starts with reflux run")
    yield from doctor_servers.dvc()
    waiting = len(list(OUTBOX.glob("*/journal.jsonl")))
    fix = "the next reflux run sends them, once MLflow answers" if waiting else ""
    yield Finding("undelivered runs", str(waiting), fix)
    yield Finding("hooks", ", ".join(r.name for r in webhooks.receivers()) or "none", " ".join(webhooks.problems()))
    try:
        yield Finding("new versions", signatures.check_keys())
    except UserError as error:
        yield Finding("new versions", "refused", str(error))
    unsent = len(webhooks.waiting())
    fix = "the next reflux command sends them, once the receiver takes them" if unsent else ""
    yield Finding("unsent events", str(unsent), fix)
    refused = len(webhooks.refused())
    fix = f"see {webhooks.HOOKS}/refused: a receiver answered that it takes no such message" if refused else ""
    yield Finding("refused events", str(refused), fix)


def _project_name() -> str:
    """The project's experiment; params.yaml may be missing or wrong."""
    try:
        return load_params().project.name
    except UserError:
        return "reflux"


def _mlflow_problem(uri: str) -> str:
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return ""
    from reflux.components.registry import client

    try:
        with client.translate_errors():
            client.connect().search_experiments(max_results=1)
    except UserError as error:
        return str(error)
    return ""
