"""A version's lineage as OpenLineage events: what would have been sent while it was made."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reflux.components.core.artifacts import ARTIFACTS, read_json
from reflux.components.core.contract import STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.runtime import openlineage
from reflux.components.core.runtime.openlineage import WEIGHTS, event
from reflux.components.registry import client
from reflux.components.registry.versions.evaluated_run import STAGE_RUNS
from reflux.components.registry.versions.files import EVALUATION, VersionFiles, fetch_files

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from openlineage.client.event_v2 import RunEvent

_FACTS = ("accuracy", "size_bytes", "gate.status")


def events(project: str, model_name: str, number: int) -> list[str]:
    """START and COMPLETE of each stage that made a version, and of its registration, each a line of JSON.

    Args:
        project: the project's name, the namespace of the jobs.
        model_name: the registered model.
        number: the version's.

    Raises:
        UserError: there is no such version, it was registered by a release that did not keep its stages' runs, or
            OpenLineage's client is not installed.
        Unreachable: MLflow does not answer.
    """
    openlineage.require()
    from openlineage.client.serde import Serde

    mlflow = client.connect()
    with client.translate_errors():
        version = client.version(mlflow, model_name, number)
        with fetch_files(version) as files:
            kept = files.folder / EVALUATION / STAGE_RUNS
            if not kept.is_file():
                raise UserError(
                    f"{model_name} version {number} was registered by a release that did not keep the runs of its "
                    "stages, so that it has no events."
                )
            runs = read_json(kept)
            made = [*_stages(project, version, files, runs), *_registration(project, version, files, runs)]
    return [Serde.to_json(each) for each in made]


def _stages(
    project: str, version: "ModelVersion", files: VersionFiles, runs: Mapping[str, Any]
) -> "Iterator[RunEvent]":
    networks = {role: files.metadata[name] for role, name in (("teacher", "teacher"), ("student", "student"))}
    networks["control"] = networks["student"]
    models = {
        f"{ARTIFACTS}/{name}/{WEIGHTS}": {"role": spec.role, "network": networks[spec.role]}
        for name, spec in STAGES.items()
        if spec.role
    }
    read = {path: sha256 for run in runs.values() for path, sha256 in run["inputs"].items()}
    registered = version.creation_timestamp / 1000
    for name, run in runs.items():
        began = run.get("began", registered)
        same = (run["journal"], project, name, run.get("pipeline"), run["inputs"])
        outputs = {path: sha256 for path, sha256 in read.items() if path.startswith(f"{ARTIFACTS}/{name}/")}
        yield event("START", began, *same, models=models)
        yield event("COMPLETE", min(began + run["wall_s"], registered), *same, outputs, models)


def _registration(
    project: str, version: "ModelVersion", files: VersionFiles, runs: Mapping[str, Any]
) -> "Iterator[RunEvent]":
    at, run = version.creation_timestamp / 1000, str(version.source).rpartition("/m-")[2]
    uri = f"models:/{version.name}/{version.version}"
    facts = {"network": files.metadata["student"]} | {name: version.tags[name] for name in _FACTS}
    evaluation = runs.get("evaluate", {"inputs": {}})
    pipeline = evaluation.get("pipeline")
    inputs = {path: sha256 for path, sha256 in evaluation["inputs"].items() if sha256 == files.sha256}
    same = (run, project, "register", pipeline, inputs)
    yield event("START", at, *same)
    yield event("COMPLETE", at, *same, {uri: files.sha256}, {uri: facts})
