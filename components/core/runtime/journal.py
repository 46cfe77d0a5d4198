"""The journal of a run: params, metrics and artifacts as lines on disk, to be delivered to MLflow.

A stage never waits for MLflow and never fails with it: it appends to its journal, and
:mod:`reflux.components.core.runtime.tracking` delivers journals (at once while the server answers, later when it was
away or the process was killed).
"""

import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Literal

import psutil

OUTBOX = Path(".reflux/outbox")
PARENT_VARIABLE = "REFLUX_PARENT_JOURNAL"
PARENT_RUN_VARIABLE = "REFLUX_PARENT_RUN"  # where the parent's journal is on another machine
COURIER_VARIABLE = "REFLUX_COURIER"
_SECONDS_FOR_RUN_ID = 10.0

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Journal:
    """The journal of one MLflow run.

    Args:
        parent: the id of the parent run's journal, if any.
        continues: the ``run_key`` of a killed process's journal: both are one MLflow run.

    Attributes:
        run_key: of the MLflow run: the id of the first journal that wrote to it.
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        tags: dict[str, str],
        parent: str | None = None,
        continues: str | None = None,
        outbox: Path = OUTBOX,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.run_key = continues or self.id
        self.folder = outbox / self.id
        self.folder.mkdir(parents=True)
        self._file = (self.folder / "journal.jsonl").open("a", encoding="utf-8")
        me = psutil.Process()
        self._write(
            "start",
            experiment=experiment,
            name=name,
            tags=tags | {"reflux.journal": self.run_key},
            parent=parent,
            pid=me.pid,
            pid_created=me.create_time(),
        )

    def params(self, values: dict[str, Any]) -> None:
        """Record the run's params, nested sections flattened to dotted names; a continued run has them already."""
        if self.run_key != self.id:
            return
        self._write("params", values={k: str(v) for k, v in flatten(values).items()})

    def metrics(self, values: dict[str, float], step: int | None = 0) -> None:
        """Record figures at a step; None stands for the number of the retrain, which MLflow's courier counts."""
        self._write("metrics", values={k: float(v) for k, v in values.items()}, step=step)

    def tags(self, values: dict[str, str]) -> None:
        self._write("tags", values=values)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file or folder; a copy of its present state is kept."""
        self._write("artifact", path=self._kept(path), folder=folder)

    def image(self, key: str, path: Path) -> None:
        """Record a picture under a key, by which a board shows it next to those of other runs."""
        self._write("image", key=key, path=self._kept(path))

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Record a dataset the run read, by the DVC hash that versions it."""
        self._write("dataset", name=name, digest=digest, source=source, context=context)

    def end(self, status: Status) -> None:
        self._write("end", status=status)
        self._file.close()

    def run_id(self) -> str | None:
        """The MLflow run id, once a courier has delivered the start; None when no server took it."""
        deadline = time.monotonic() + (_SECONDS_FOR_RUN_ID if os.environ.get(COURIER_VARIABLE) else 0)
        while not (state := delivery(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return state.get("run_id")

    def _kept(self, path: Path) -> str:
        kept = self.folder / "files" / uuid.uuid4().hex / path.name
        kept.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, kept)
        else:
            shutil.copy2(path, kept)
        return str(kept.relative_to(self.folder))

    def _write(self, op: str, **fields: Any) -> None:
        self._file.write(json.dumps({"op": op, "time_ms": int(time.time() * 1000), **fields}) + "\n")
        self._file.flush()


class NullJournal(Journal):
    """A journal that keeps nothing, for processes other than rank 0."""

    def __init__(self) -> None:
        self.id = self.run_key = ""

    def end(self, status: Status) -> None:
        pass

    def run_id(self) -> None:
        return None

    def _kept(self, path: Path) -> str:
        return ""

    def _write(self, op: str, **fields: Any) -> None:
        pass


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def delivery(folder: Path) -> dict[str, Any]:
    """How far a journal was delivered: ``{"run_id", "lines"}``, or empty before the first attempt."""
    try:
        return json.loads((folder / "delivery.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def writer_is_alive(start: dict[str, Any]) -> bool:
    """True while the process that began a journal runs (its pid may have been given to another)."""
    try:
        return abs(psutil.Process(start["pid"]).create_time() - start["pid_created"]) < 1
    except psutil.NoSuchProcess:
        return False
