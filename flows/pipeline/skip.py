"""The hash of everything that decides a run's result: if a finished run has the same one, there is nothing to do."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.contract import STAGES
from reflux.components.core.dvc_yaml import PIPELINE
from reflux.components.core.params.sections import Params
from reflux.components.core.runtime import installed, lineage
from reflux.components.registry import client
from reflux.components.registry.client import Unreachable
from reflux.flows.repo import dataset

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "inputs.sha256"
# With the parts of the registry that say what a version is made of, and what happens to it.
_CODE = (
    *(f"stages.{name}" for name in STAGES),
    *(f"registry.{part}" for part in ("policy", "promote", "register", "versions")),
)


@dataclass(frozen=True)
class Done:
    """A finished run of the same inputs.

    Attributes:
        run_name: the parent run's name in MLflow.
        at: when it ended.
        version: the registered version it ended in.
        decision: on that version, as in the ledger.
    """

    run_name: str
    at: datetime
    version: int
    decision: str

    def sentence(self, model_name: str) -> str:
        """The reason why there is nothing to do."""
        return (
            f"Nothing has changed: data, code and params are those of {self.run_name}, which ended at "
            f"{self.at:%Y-%m-%d %H:%M} UTC in {model_name} version {self.version} ({self.decision})."
        )


def identity(params: Params) -> str | None:
    """The sha256 of everything that decides a run's result; None where it can't be known.

    The code is that of the installed package. Files that no stage depends on, such as a README or ``dvc.lock``, do not
    count.

    Raises:
        UserError: the dataset is not here.
    """
    named = (params.pretrain.weights, params.student.weights, *params.distill.teachers)
    weights = [_weights(name) for name in named]
    own, *others = params.datasets.items()
    weights += [dataset.version_of_other(path, param) for param, path in others]
    if None in weights:
        return None
    releases = installed.releases(params.compress.ships) if params.run.retrain_on_upgrade else None
    settings = [lineage.params_sha256(), params.model_dump_json(by_alias=True)]  # the file, and the defaults
    code = [sha256_file(PIPELINE), lineage.code_sha256(*_CODE)]
    parts = [*code, *weights, *settings, dataset.version(own[1]), releases]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def done(params: Params, inputs: str | None) -> Done | None:
    """The last finished run of these inputs, if its version still is in the registry; None also without MLflow."""
    if inputs is None:
        return None
    try:
        return client.retry(lambda: _done(client.connect(), params.project.name, params.registry.model_name, inputs))
    except Unreachable:
        return None


def _done(mlflow: "MlflowClient", project: str, model_name: str, inputs: str) -> Done | None:
    experiment = mlflow.get_experiment_by_name(project)
    if experiment is None:
        return None
    same = f"tags.`{TAG}` = '{inputs}' AND tags.run_kind = 'pipeline' AND attributes.status = 'FINISHED'"
    for run in mlflow.search_runs([experiment.experiment_id], same, order_by=["attributes.start_time DESC"]):
        tags: dict[str, Any] = run.data.tags
        # One whose version is not decided on ended while MLflow was away.
        if "decision" in tags and client.versions(mlflow, model_name, f"version_number = {tags['version']}"):
            ended = datetime.fromtimestamp(run.info.end_time / 1000, UTC)
            return Done(run.info.run_name, ended, int(tags["version"]), tags["decision"])
    return None


def _weights(weights: str) -> str | None:
    """What a name of weights stands for now; None if its meaning can change."""
    if weights.startswith("models:/") and "@" in weights:
        return None
    return sha256_file(Path(weights)) if Path(weights).is_file() else weights
