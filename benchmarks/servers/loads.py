"""The loads of ``benchmarks.servers``: retrains at once, an experiment of many runs, a model of many versions.

Not in ``__main__``, from which spawned processes can import nothing.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from benchmarks.harness.results import Figure, of_rounds
from benchmarks.servers import rows
from benchmarks.servers.recorded import copy_journals, retrain
from benchmarks.servers.stack import Watch, folder_bytes
from infra.local.settings import Stack
from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.params.sections import Params, Project
from reflux.components.core.runtime import tracking
from reflux.components.registry import client
from reflux.components.registry.ledger import ledger
from reflux.components.registry.ledger.record import Grounds
from reflux.components.registry.promote import challenge
from reflux.components.registry.register import register
from reflux.components.registry.versions.evaluated_run import Lineage
from reflux.flows.pipeline import skip

CLIENTS = (1, 10, 100)
RUNS = (100, 1_000, 10_000)
VERSIONS = (1, 10, 100, 1_000)
PROCESSES = 4
TRIES = 5
SECONDS_TO_SETTLE = 15  # Prefect writes logs and events in batches
EXPERIMENT = "many"


def at_once(stack: Stack, outbox: Path, scratch: Path, clients: int) -> Iterator[Figure]:
    """Figures of some retrains that report to the servers at the same time."""
    processes = min(PROCESSES, clients)
    outboxes = [copy_journals(outbox, scratch / f"{clients}-{n}", f"team-{clients}-{n}") for n in range(clients)]
    first = [[copy_journals(outbox, scratch / f"{clients}-first-{n}", "first")] for n in range(processes)]
    databases = {name: rows.connect(stack, name).cursor() for name in ("mlflow", "prefect")}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(report, first))  # imports, and the servers' first-time work
        time.sleep(SECONDS_TO_SETTLE)
        before = {name: (rows.inserted(cursor), rows.size(cursor)) for name, cursor in databases.items()}
        files = folder_bytes(stack.state / "s3")
        with Watch(stack) as watch:
            began = time.monotonic()
            reports = list(itertools.chain(*pool.map(report, [outboxes[n::processes] for n in range(processes)])))
            wall_s = time.monotonic() - began
        time.sleep(SECONDS_TO_SETTLE)
    name = f"{clients} at once"
    yield of_rounds(f"{name}: a retrain is reported", [seconds for seconds, _ in reports], "s")
    yield once(f"{name}: retrains", 60 * clients / wall_s, "/min")
    yield once(f"{name}: deliveries that had to be repeated", sum(repeated for _, repeated in reports), "")
    for part in watch.cpu_s:
        yield once(f"{name}: {part}, CPU", watch.cpu_s[part] / clients, "s a retrain")
        yield once(f"{name}: {part}, memory", watch.mb[part], "MB")
    for part, cursor in databases.items():
        yield once(f"{name}: {part}'s database, rows", (rows.inserted(cursor) - before[part][0]) / clients, "a retrain")
        yield once(f"{name}: {part}'s database", (rows.size(cursor) - before[part][1]) / clients / 1e3, "KB a retrain")
    yield once(f"{name}: S3", (folder_bytes(stack.state / "s3") - files) / clients / 1e3, "KB a retrain")


def report(outboxes: Sequence[Path]) -> list[tuple[float, int]]:
    """Be one process's clients; returns of each the seconds it took, and how often its delivery was repeated."""

    def client(outbox: Path) -> tuple[float, int]:
        began = time.monotonic()
        repeated = retrain(str(outbox))
        return time.monotonic() - began, repeated

    with ThreadPoolExecutor(len(outboxes)) as threads:
        return list(threads.map(client, outboxes))


def many_runs(stack: Stack, outbox: Path, scratch: Path, params: Params) -> Iterator[Figure]:
    """Figures of one experiment with ever more runs."""
    mlflow, number = tracking.client(), itertools.count()
    params = params.model_copy(update={"project": Project(name=EXPERIMENT)})

    def one_more() -> None:
        tracking.deliver(copy_journals(outbox, scratch / f"many-{next(number)}", EXPERIMENT))

    one_more()
    experiments, newest = [tracking.experiment_id(mlflow, EXPERIMENT)], ["attributes.start_time DESC"]
    originals = [run.info.run_id for run in mlflow.search_runs(experiments)]
    parent = mlflow.search_runs(experiments, "tags.run_kind = 'pipeline'")[0].info.run_id
    children = f"tags.`mlflow.parentRunId` = '{parent}'"
    copied = 1
    with rows.connect(stack, "mlflow").cursor() as cursor:
        for runs in RUNS:
            rows.copy_runs(cursor, originals, (copied, runs // len(originals)))
            copied = runs // len(originals)
            name = f"{runs:,} runs"
            yield timed(
                f"{name}: the 100 newest, as MLflow's page asks",
                lambda: mlflow.search_runs(experiments, "", max_results=100, order_by=newest),
            )
            yield timed(f"{name}: has this been done? no", lambda: skip.done(params, "0" * 64))
            yield timed(f"{name}: the stages of a retrain", lambda: mlflow.search_runs(experiments, children))
            yield timed(f"{name}: one more retrain is reported", one_more)


def many_versions(stack: Stack, params: Params) -> Iterator[Figure]:
    """Figures of one model with ever more versions, each with its decision."""
    mlflow, model, project = tracking.client(), params.registry.model_name, params.project.name
    parent = mlflow.search_runs([tracking.experiment_id(mlflow, EXPERIMENT)], "tags.run_kind = 'pipeline'")[0]
    origin = Lineage(parent.info.run_id, params_sha256="0" * 64, data_md5=None, git_sha=None, flow_run_id=None)
    metrics = ARTIFACTS / "evaluate" / "metrics.json"

    def registered() -> int:
        metrics.write_text(metrics.read_text("utf-8") + "\n", encoding="utf-8")  # another evaluation
        return register(ARTIFACTS, model, project, origin).version

    def decided(version: int) -> None:
        challenge(ARTIFACTS, project, model, version, replace(Grounds.of(params), approval="auto"))

    decided(registered())
    originals = [entry.run_id for entry in ledger.entries(mlflow, project, model)]
    present, new = 1, list[int]()
    with rows.connect(stack, "mlflow").cursor() as cursor:
        for count in VERSIONS:
            rows.copy_version(cursor, model, (present + 1, count + 1))
            rows.copy_runs(cursor, originals, (present, count))
            name = f"{count:,} versions"
            yield timed(f"{name}: which is the champion?", lambda: client.aliases(mlflow, model))
            yield timed(f"{name}: all of them", lambda: client.versions(mlflow, model))
            yield timed(f"{name}: their decisions", lambda: ledger.entries(mlflow, project, model))
            yield timed(f"{name}: one more is registered", lambda: new.append(registered()))
            yield timed(f"{name}: and decided on", lambda: decided(new.pop(0)))
            present = count + TRIES


def timed(name: str, request: Callable[[], object]) -> Figure:
    """The milliseconds of several tries."""
    milliseconds = []
    for _ in range(TRIES):
        began = time.monotonic()
        request()
        milliseconds.append(1000 * (time.monotonic() - began))
    return of_rounds(name, milliseconds, "ms")


def once(name: str, value: float, unit: str) -> Figure:
    """A figure that was measured once."""
    return of_rounds(name, [value], unit)
