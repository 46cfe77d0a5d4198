"""A trial: a student that learns from the stored soft labels as ``distill`` has it, judged on validation images.

It reads what ``distill`` may read, which ``dvc.yaml`` lists; the test split is not among it.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reflux.components.advice.tune.result import HOME
from reflux.components.core.contract import FILES
from reflux.components.core.data.shards import Shard, at_once, open_shard
from reflux.components.core.export import program
from reflux.components.core.export.network import fit_rows, load, sample
from reflux.components.core.params.sections import Params
from reflux.components.core.precision import computing
from reflux.components.core.runtime.journal import Journal, Status
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models.pixel_model import PixelModel
from reflux.components.stages.compress.ship import writer
from reflux.components.stages.distill.trainer import Trainer
from reflux.components.stages.evaluate.metrics import Floats, measure

Watch = Callable[[int, float], None]

_CALIBRATION_IMAGES = 512
_AT_ONCE = 256


class WatchedJournal(Journal):
    """A journal that also tells each validation accuracy to ``watch``, which may end the training run by an error."""

    def __init__(self, watch: Watch, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._watch = watch

    def metrics(self, values: dict[str, float], step: int | None = 0) -> None:
        super().metrics(values, step)
        if step and "val/accuracy" in values:
            self._watch(step, values["val/accuracy"])


class Trial(Stage):
    """A run of ``distill`` outside of the pipeline: it has the stage's inputs, and a folder and a run of its own.

    Args:
        name: of its run in MLflow.
        params: with the changes that are tried.
        changes: what is tried, for MLflow.
        seed: of the weights and of the order of the images; None is the run's own.
        parent: the journal of the study's run.
        watch: called with step and accuracy at each validation.
    """

    def __init__(
        self, name: str, params: Params, changes: Mapping[str, Any], seed: int | None, parent: str, watch: Watch
    ) -> None:
        super().__init__("distill", params)
        recipe = [params.student.model_dump(), params.distill.model_dump(), params.seed, seed]
        self.folder = HOME / "trials" / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
        self.kept = self.folder / "checkpoints"
        self._run_name, self._changes, self._seed = name, changes, seed
        self._parent, self._watch = parent, watch

    @cached_property
    def journal(self) -> Journal:
        """The journal of the trial's run, a child of the study's; a resumed trial continues the killed one's."""
        continues = self._checkpoints.journal if self._checkpoints else None
        project, tags = self.params.project.name, {"run_kind": "tune trial"}
        journal = WatchedJournal(self._watch, project, self._run_name, tags, self._parent, continues)
        if self._checkpoints:
            self._checkpoints.begin(journal.run_key)
        seed = {} if self._seed is None else {"seed": self._seed}
        journal.params({name: str(value) for name, value in self._changes.items()} | seed)
        return journal

    def out(self, name: str) -> Path:
        return self.folder / name

    def end(self, status: Status) -> None:
        """End the trial's run in MLflow, if it began; its files go with it, unless it was interrupted."""
        if "journal" in vars(self):
            self.journal.end(status)
        if status != "KILLED":
            shutil.rmtree(self.folder, ignore_errors=True)


def train(trial: Trial, seed: int | None, device: torch.device) -> PixelModel:
    """Distill the trial's student from the stored soft labels; see :meth:`Trainer.train_student`.

    Raises:
        UserError: there are no soft labels that fit, or the loss is no longer finite.
    """
    trial.environment |= computing(device, trial.params.student.precision, trial.params.run.compile)
    return Trainer(trial, device).train_student(None, seed).cpu().eval()


def figures_of(trial: Trial, student: PixelModel, kind: str) -> dict[str, float]:
    """The quality on validation images of the file that would ship, and the size of an int8 one, which is written.

    An fp32 file answers as the student itself, as ``compress`` proves of every one that ships.
    """
    val = open_shard(trial.read("ingest/shards/val"), trial.params.run.workers)
    if FILES[kind].precision == "fp32":
        return measure(_logits(student, val), val.labels)
    train_split = open_shard(trial.read("ingest/shards/train"), trial.params.run.workers)
    calibration = sample(train_split.images, _CALIBRATION_IMAGES, student.spec)
    path = trial.out(FILES[kind].name)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(student, calibration)(kind, path)
    return measure(load(path).logits(val.images), val.labels) | {"size_kb": path.stat().st_size / 1024}


def _logits(student: PixelModel, split: Shard) -> Floats:
    """Logits [N, K] in full precision of images as a file takes them."""
    size, spec = at_once(split.images, _AT_ONCE), student.spec
    rows = (np.arange(begin, min(begin + size, len(split))) for begin in range(0, len(split), size))
    parts = [program.forward(student, fit_rows(split.images, each, spec.image_size, spec.in_chans)) for each in rows]
    return np.concatenate(parts)
