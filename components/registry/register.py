"""Register an evaluated student: one version per evaluation, however often it is registered."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.core.contract import shipped, trained
from reflux.components.core.runtime import tracking
from reflux.components.registry import client
from reflux.components.registry.ledger import lock
from reflux.components.registry.text import markdown
from reflux.components.registry.versions import logged_models
from reflux.components.registry.versions.evaluated_run import EvaluatedRun, Lineage, read_evaluated_run
from reflux.components.registry.versions.files import FILES_SHA256

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Registered:
    """A version of the registered model, and its LoggedModel; ``created`` by this call or by an earlier one."""

    version: int
    created: bool
    model_id: str


def register(artifacts: Path, model_name: str, experiment: str, lineage: Lineage) -> Registered:
    """Register the student in ``artifacts`` as a version of ``model_name`` and make it the challenger.

    The files are uploaded and verified first; the version, its tags and its description then appear in one transaction,
    so a crash leaves either no version or a complete one. Registering the same evaluation again changes nothing.

    Raises:
        UserError: the evaluation is missing or is of another file.
        Unreachable: MLflow does not answer.
    """
    evaluated = read_evaluated_run(artifacts)
    mlflow = client.connect()
    with client.translate_errors(), lock.held(mlflow, model_name):
        created = False
        version = _registered(mlflow, model_name, evaluated.lineage_key)
        if version is None:
            _create_model(mlflow, model_name, experiment)
            version = _create_version(mlflow, evaluated, model_name, experiment, lineage)
            created = version == _registered(mlflow, model_name, evaluated.lineage_key)
        number, model_id = version
        if client.aliases(mlflow, model_name).get(client.CHALLENGER) != number:
            client.set_alias(mlflow, model_name, client.CHALLENGER, number)
    return Registered(number, created, model_id)


def _registered(mlflow: "MlflowClient", model_name: str, key: str) -> tuple[int, str] | None:
    matches = client.versions(mlflow, model_name, f"tags.`lineage.key` = '{key}'")
    return (int(matches[0].version), str(matches[0].source).removeprefix(logged_models.LOGGED)) if matches else None


def _create_model(mlflow: "MlflowClient", model_name: str, experiment: str) -> None:
    from mlflow.exceptions import MlflowException

    description = (
        f"Students of {experiment}. `champion` is in production, `previous` was before it, `challenger` is the newest "
        "candidate. Each version says where it comes from and why it was promoted or rejected."
    )
    try:
        mlflow.create_registered_model(model_name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _create_version(
    mlflow: "MlflowClient", evaluated: EvaluatedRun, model_name: str, experiment: str, lineage: Lineage
) -> tuple[int, str]:
    experiment_id = tracking.experiment_id(mlflow, experiment)
    teacher_id = logged_models.teacher(mlflow, evaluated, experiment_id, lineage.run_id)
    tags = lineage.tags() | evaluated.origin()
    tags |= {
        "lineage.key": evaluated.lineage_key,
        "artifact_sha256": evaluated.sha256,
        "test_fingerprint": evaluated.metrics["test"]["fingerprint"],
        "experiment_id": experiment_id,
        "teacher.model_id": teacher_id,
        "trained": trained(evaluated.metrics),
    }
    if evaluate_run := logged_models.run_of(mlflow, evaluated.artifacts / "evaluate" / "run.json"):
        tags["evaluate.run_id"] = evaluate_run
    model_id = logged_models.student(mlflow, evaluated, experiment_id, lineage.run_id, teacher_id, tags)
    tags |= {"model_id": model_id, FILES_SHA256: mlflow.get_logged_model(model_id).tags[FILES_SHA256]}
    own = shipped(evaluated.metrics)
    names = logged_models.architectures(evaluated)
    figures = {name: str(own[name]) for name in ("accuracy", "size_bytes")}
    version = mlflow.create_model_version(
        model_name,
        f"{logged_models.LOGGED}{model_id}",
        lineage.run_id,
        tags={key: client.fit(value) for key, value in tags.items()} | {"gate.status": "UNKNOWN"} | figures,
        description=client.fit(markdown.version(evaluated.metrics, names, evaluated.dataset["name"], tags, None)),
        model_id=model_id,
    )
    return _first_of_twins(mlflow, model_name, evaluated.lineage_key, int(version.version), model_id)


def _first_of_twins(mlflow: "MlflowClient", model_name: str, key: str, own: int, model_id: str) -> tuple[int, str]:
    """Keep the older of two equal versions, which two hosts can create if one loses the lock during its upload."""
    first = _registered(mlflow, model_name, key)
    if first is None or first[0] == own:
        return own, model_id
    client.if_exists(mlflow.delete_model_version, model_name, str(own))
    return first
