"""Delivers journals to MLflow; the only module of ``reflux.components.core`` that imports it.

With no ``MLFLOW_TRACKING_URI`` nothing is delivered. When the server is away the journals wait in the outbox and the
next delivery sends them, with their own times and in their own order.
"""

import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflux.components.core.artifacts import write_json
from reflux.components.core.errors import UserError, listed
from reflux.components.core.project import root
from reflux.components.core.runtime.journal import OUTBOX, delivery, writer_is_alive

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_SECONDS_BETWEEN_DELIVERIES = 0.5
_SECONDS_AFTER_FAILURE = 15.0
_METRICS_A_BATCH = 500
_TRIES_OF_A_DATABASE = 6  # in six seconds; MLflow has ten tries, in 102 seconds
_SECONDS_TO_BEGIN = 3.0
_DRIVERS = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # packages whose module has another name
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>`]+")
# A password may hold signs that should have been encoded; a port is none.
_LOGIN = re.compile(r"//(?:[^/@?#]*:(?!\d+(?:[/?#]|$)).*|[^/?#]*)@")
_LATE_RUNS = 50  # runs that began before another one and arrived after it

RETRAIN = "retrain"  # the tag with a pipeline run's number, counted from 1


def uri() -> str | None:
    """The address of MLflow, or None for no tracking."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def without_secrets(text: str) -> str:
    """Hide what may be secret in the addresses of a text: user and password, the query's values, the fragment."""
    return _ADDRESS.sub(lambda match: _hidden(match[0]), text)


def _hidden(address: str) -> str:
    address = _LOGIN.sub("//", address)
    address, mark, _ = address.partition("#")
    place, question, query = address.partition("?")
    values = re.sub(r"(^|[&;])([^=&;]*=)?[^&;]+", r"\1\2…", query)
    return f"{place}{question}{values}{mark}{'…' * bool(mark)}"


def database() -> Path | None:
    """The SQLite file that is MLflow's database; None with another database or a server."""
    address = uri() or ""
    return Path(address.removeprefix("sqlite:///").partition("?")[0]) if address.startswith("sqlite:///") else None


def refuse_empty_database() -> None:
    """Stop where MLflow would take the remains of a lost database for a new one, and begin anew without a word.

    Raises:
        UserError: the SQLite file is there and empty.
    """
    file, began = database(), time.monotonic()
    while file is not None and file.is_file() and not file.stat().st_size:
        if time.monotonic() - began > _SECONDS_TO_BEGIN:
            raise UserError(
                f"MLflow's database {file} is empty (0 bytes), so that all runs and models in it are lost: restore a "
                "copy of it, or delete it to begin anew."
            )
        time.sleep(0.1)  # another process may just be making it


def driver(error: ImportError) -> str:
    """The package that brings the driver of a database, from the error of its import."""
    name: str = error.name or getattr(error.__cause__, "name", None) or str(error)
    return _DRIVERS.get(name, name)


def client() -> "MlflowClient":
    """The MLflow client, with timeouts that suit training: a lost server costs seconds, not minutes.

    Raises:
        sqlalchemy.exc.OperationalError: the database at ``uri()`` does not answer; a server is first asked later.
        UserError: the database is an empty file.
    """
    refuse_empty_database()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "15")
    from mlflow import MlflowClient

    if not str(uri()).startswith("http"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = _TRIES_OF_A_DATABASE
        logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)  # a traceback for each try
    return MlflowClient()


def find_experiment(mlflow: "MlflowClient", name: str) -> "Experiment | None":
    """Find an experiment by its name; None if there never was one.

    Raises:
        UserError: somebody deleted it.
    """
    found = mlflow.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow's experiment {name} was deleted: restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`."
        )
    return found


def experiment_id(mlflow: "MlflowClient", name: str) -> str:
    """Return the experiment's id; it is created on first use, and a race with another process is no error.

    Raises:
        UserError: somebody deleted it.
    """
    from mlflow.exceptions import MlflowException

    if experiment := find_experiment(mlflow, name):
        return str(experiment.experiment_id)
    location = None
    if str(uri()).startswith("sqlite:") and not os.environ.get("MLFLOW_ARTIFACT_ROOT"):
        location = (root() / "mlartifacts" / name).resolve().as_uri()
    try:
        return mlflow.create_experiment(name, artifact_location=location)
    except MlflowException:
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def download_weights(model_uri: str, param: str) -> Path:
    """Fetch the safetensors file of an MLflow model.

    Args:
        model_uri: its ``models:/`` URI.
        param: that holds the URI; or the argument of a command that is it, or ends with it.

    Raises:
        UserError: the server is away, the model is unknown, or it holds no safetensors file or several.
    """
    subject = param if param.endswith(model_uri) else f"{param} = {model_uri}"
    client()
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
    except (MlflowException, OSError) as error:
        why = f"can't be fetched from {uri()}: {str(error).splitlines()[0].rstrip('.')}. Name a version that it has."
        raise UserError(f"{subject} {without_secrets(why)}") from None
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise UserError(f"{subject} holds no .safetensors file: name a teacher that Reflux logged.")
    if len(files) > 1:
        names = listed([file.relative_to(folder).as_posix() for file in files], 3)
        raise UserError(
            f"{subject} holds {len(files)} .safetensors files ({names}): download the one that you mean, "
            f"and set {param} to its path."
        )
    return files[0]


def deliver(outbox: Path = OUTBOX) -> int:
    """Send the journals to MLflow, and delete those sent to their end.

    Returns:
        The number of journals that still wait, because the server is away or its database can't be used.
    """
    if uri() is None or not outbox.is_dir():
        return 0
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    folders = sorted(_journals(outbox), key=_order)
    waiting = 0
    ended: list[Path] = []
    unfinished: set[str | None] = set()
    mlflow: MlflowClient | None = None
    if folders:
        # The database is away or lost, its driver is, or it is of another release of MLflow.
        with suppress(SQLAlchemyError, ModuleNotFoundError, CommandError, MlflowException, UserError):
            mlflow = client()
    for folder in folders:
        key = _start(folder).get("tags", {}).get("reflux.journal")
        try:
            if key in unfinished:
                raise ConnectionError("the journal that this one continues has not arrived yet")
            if mlflow is None:
                raise ConnectionError("the database does not answer")
            if _deliver_one(mlflow, folder, outbox):
                ended.append(folder)
            else:
                unfinished.add(key)
        except (MlflowException, OSError):
            waiting += 1
            unfinished.add(key)
            if not delivery(folder):
                write_json(folder / "delivery.json", {"run_id": None, "lines": 0})
    # A parent's folder tells its children's journals the parent's run id: it goes last.
    parents = {_start(f).get("parent") for f in _journals(outbox) if f not in ended}
    for folder in ended:
        if folder.name not in parents:
            shutil.rmtree(folder)
    return waiting


@contextmanager
def courier(outbox: Path = OUTBOX) -> Iterator[None]:
    """Deliver in the background while the block runs, and once more when it ends."""
    stop = threading.Event()

    def work() -> None:
        pause = 0.0
        while not stop.wait(pause):
            pause = _SECONDS_AFTER_FAILURE if deliver(outbox) else _SECONDS_BETWEEN_DELIVERIES

    thread = threading.Thread(target=work, name="mlflow-courier", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        deliver(outbox)


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "journal.jsonl").read_text(encoding="utf-8")
    # What follows the last newline is a line still being written, or cut short by a kill.
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _journals(outbox: Path) -> list[Path]:
    return [folder for folder in outbox.iterdir() if (folder / "journal.jsonl").is_file()]


def _start(folder: Path) -> dict[str, Any]:
    lines = _lines(folder)
    return lines[0] if lines else {}


def _order(folder: Path) -> tuple[int, bool]:
    """Oldest first, and a parent before a child of the same millisecond."""
    start = _start(folder)
    return int(start.get("time_ms", time.time() * 1000)), bool(start.get("parent"))


def _deliver_one(mlflow: "MlflowClient", folder: Path, outbox: Path) -> bool:
    """Send one journal's new lines; True when it was sent to its end."""
    start = _start(folder)
    # Before the lines are read: a writer that ends while they are sent has an end we have not read yet.
    alive = bool(start) and writer_is_alive(start)
    lines = _lines(folder)
    if not lines:
        return False
    state = delivery(folder) or {"run_id": None, "lines": 0}
    parent = outbox / lines[0]["parent"] if lines[0]["parent"] else None
    if parent is not None and parent.is_dir() and not delivery(parent).get("run_id"):
        # A child can't be moved under its parent later.
        raise ConnectionError("the parent run has not arrived yet")
    if state["run_id"] is None:
        state = {"run_id": _start_run(mlflow, lines[0], outbox), "lines": 1}
        write_json(folder / "delivery.json", state)
    for end, batch in _batches(lines[state["lines"] :]):
        _send(mlflow, state["run_id"], folder, batch)
        write_json(folder / "delivery.json", {"run_id": state["run_id"], "lines": state["lines"] + end})
    if lines[-1]["op"] == "end":
        return True
    if alive or not start:
        return False
    mlflow.set_terminated(state["run_id"], "KILLED", lines[-1]["time_ms"])
    return True


def _start_run(mlflow: "MlflowClient", start: dict[str, Any], outbox: Path) -> str:
    tags = dict(start["tags"])
    if start["parent"] and (parent := delivery(outbox / start["parent"]).get("run_id")):
        tags["mlflow.parentRunId"] = parent
    experiment = experiment_id(mlflow, start["experiment"])
    # It is there already when a delivery died between creating the run and noting its id, or when a killed run
    # resumes.
    for run in mlflow.search_runs([experiment], f"tags.`reflux.journal` = '{tags['reflux.journal']}'", max_results=1):
        run_id = str(run.info.run_id)
        mlflow.update_run(run_id, "RUNNING")
        for key, value in tags.items():
            mlflow.set_tag(run_id, key, value)
        return run_id
    if tags.get("run_kind") == "pipeline":
        tags[RETRAIN] = str(_next_retrain(mlflow, experiment))
    run = mlflow.create_run(experiment, start["time_ms"], tags, start["name"])
    return str(run.info.run_id)


def _next_retrain(mlflow: "MlflowClient", experiment: str) -> int:
    """The number of the next retrain, counted where all of them arrive."""
    newest = ["attributes.start_time DESC"]
    runs = mlflow.search_runs([experiment], "tags.run_kind = 'pipeline'", max_results=_LATE_RUNS, order_by=newest)
    numbers = (run.data.tags.get(RETRAIN, "") for run in runs)
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)  # a person may edit a tag


def _batches(lines: list[dict[str, Any]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Group neighboring metric lines, so that a thousand steps are two requests, not a thousand."""
    batch: list[dict[str, Any]] = []
    size = 0
    for index, line in enumerate(lines):
        if batch and (line["op"] != "metrics" or batch[-1]["op"] != "metrics" or size > _METRICS_A_BATCH):
            yield index, batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.get("values", ()))
    if batch:
        yield len(lines), batch


def _send(mlflow: "MlflowClient", run_id: str, folder: Path, batch: list[dict[str, Any]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    first = batch[0]
    match first["op"]:
        case "metrics":
            steps = {m["step"] for m in batch}
            number = int(mlflow.get_run(run_id).data.tags[RETRAIN]) if None in steps else 0
            metrics = [
                Metric(k, v, m["time_ms"], number if m["step"] is None else m["step"])
                for m in batch
                for k, v in m["values"].items()
            ]
            mlflow.log_batch(run_id, metrics=metrics)
        case "params":
            mlflow.log_batch(run_id, params=[Param(k, v) for k, v in first["values"].items()])
        case "tags":
            mlflow.log_batch(run_id, tags=[RunTag(k, v) for k, v in first["values"].items()])
        case "artifact":
            path = folder / first["path"]
            if path.is_dir():
                mlflow.log_artifacts(run_id, str(path), "/".join(filter(None, [first["folder"], path.name])))
            else:
                mlflow.log_artifact(run_id, str(path), first["folder"])
        case "image":
            from PIL import Image

            with Image.open(folder / first["path"]) as picture:
                mlflow.log_image(run_id, picture, key=first["key"], step=0, timestamp=first["time_ms"])
        case "dataset":
            source = json.dumps({"uri": first["source"]})
            dataset = Dataset(first["name"], first["digest"][:36], source_type="dvc", source=source)
            tag = InputTag("mlflow.data.context", first["context"])
            mlflow.log_inputs(run_id, [DatasetInput(dataset, [tag])])
        case "end":
            mlflow.set_terminated(run_id, first["status"], first["time_ms"])
