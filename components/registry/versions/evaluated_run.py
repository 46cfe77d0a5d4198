"""The evaluated student that a pipeline run leaves in its artifacts, read and checked as a whole."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflux.components.core.artifacts import read_json, sha256_file
from reflux.components.core.contract import FILES, STAGES, ships, trained
from reflux.components.core.errors import UserError

LIVE = "live"
CARD = "model-card.md"
STAGE_RUNS = "stages.json"  # of each stage, its run.json
TRAINED_ON = "trained-on.npy"  # ids of the images that a model was made from


@dataclass(frozen=True)
class Lineage:
    """The origin of a version, with the pipeline's parent run; None for what this copy of the project can't know."""

    run_id: str
    params_sha256: str | None
    data_md5: str | None
    git_sha: str | None
    flow_run_id: str | None

    def tags(self) -> dict[str, str]:
        values = {
            "run_id": self.run_id,
            "params.sha256": self.params_sha256,
            "dvc.data_md5": self.data_md5,
            "git.sha": self.git_sha,
            "prefect.flow_run_id": self.flow_run_id,
        }
        return {key: value for key, value in values.items() if value}


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluated student.

    Attributes:
        sha256: of the file that ships.
        lineage_key: hash of the evaluation and the file; it identifies an evaluation.
    """

    artifacts: Path
    metrics: dict[str, Any]
    dataset: dict[str, Any]
    sha256: str
    lineage_key: str

    @property
    def file(self) -> Path:
        return self.artifacts / "compress" / FILES[ships(self.metrics)].name

    @property
    def teacher(self) -> Path:
        return self.artifacts / "finetune" / "model.safetensors"

    def origin(self) -> dict[str, str]:
        """Tags on the teacher's pretrained weights and the soft labels; unknown ones are absent."""
        values: dict[str, Any] = {}
        pretrained, labels = self.artifacts / "pretrain" / "model.json", self.artifacts / "label" / "manifest.json"
        if pretrained.is_file():
            weights = read_json(pretrained)
            values |= {f"pretrained.{name}": weights.get(name) for name in ("model", "weights", "sha256")}
        if labels.is_file() and trained(self.metrics) == "distilled":
            # A live teacher predicts at every step: it leaves a manifest, but no store that would have a key.
            values["soft_labels.key"] = read_json(labels).get("key", LIVE)
        return {name: str(value) for name, value in values.items() if value is not None}

    @property
    def stage_runs(self) -> dict[str, Any]:
        """What each stage left of its run, by the stage's name: what it read, when, where and with which packages."""
        files = {name: self.artifacts / name / "run.json" for name in STAGES}
        return {name: read_json(file) for name, file in files.items() if file.is_file()}

    @property
    def evaluation(self) -> list[Path]:
        """The files that are kept with the model."""
        evaluate = ("metrics.json", "model-card.html", CARD, "probe.npz", TRAINED_ON)
        names = (*(f"evaluate/{name}" for name in evaluate), "ingest/dataset.json")
        croissant = self.artifacts / "ingest/croissant.json"  # none where an older release ingested
        return [*(self.artifacts / name for name in names), *([croissant] if croissant.is_file() else [])]


def read_evaluated_run(artifacts: Path) -> EvaluatedRun:
    """Read a finished evaluation and its files.

    Raises:
        UserError: a file is missing, or the evaluation is of another file or of another test split.
    """
    metrics_path = artifacts / "evaluate" / "metrics.json"
    metrics, dataset = read_json(metrics_path), read_json(artifacts / "ingest" / "dataset.json")
    evaluated = EvaluatedRun(artifacts, metrics, dataset, "", "")
    for path in (evaluated.file, evaluated.teacher, *evaluated.evaluation):
        if not path.is_file():
            raise UserError(f"{path} is missing: run the stage that makes it (`reflux run`).")
    sha256 = sha256_file(evaluated.file)
    evaluated_sha256 = metrics.get("artifact_sha256", {}).get(ships(metrics))
    if evaluated_sha256 != sha256:
        raise UserError(
            f"{metrics_path} is the evaluation of another file than {evaluated.file} "
            f"(sha256 {str(evaluated_sha256)[:12]}…, not {sha256[:12]}…): run `reflux run` to evaluate it."
        )
    if metrics["test"]["fingerprint"] != dataset["fingerprints"]["test"]:
        raise UserError(f"{metrics_path} was measured on another test split: run `reflux run` to evaluate again.")
    return EvaluatedRun(artifacts, metrics, dataset, sha256, lineage_key(metrics_path, sha256))


def lineage_key(metrics: Path, artifact_sha256: str) -> str:
    """The key that makes registering idempotent: one evaluation of one file."""
    return hashlib.sha256(f"{sha256_file(metrics)}\n{artifact_sha256}\n".encode()).hexdigest()
