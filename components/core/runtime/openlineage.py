"""OpenLineage events of a stage: that it started and how it ended, with what it read and made.

They are sent where ``OPENLINEAGE_URL`` is set, by OpenLineage's own client, which is not imported otherwise. A receiver
that is away never makes a stage fail.
"""

import os
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from reflux.components.core.artifacts import ARTIFACTS, sha256_file
from reflux.components.core.contract import STAGES
from reflux.components.core.errors import UserError
from reflux.components.core.params.sections import Params

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

URL = "OPENLINEAGE_URL"
WEIGHTS = "model.safetensors"
PIPELINE = "retrain"

_PATIENCE_S = 3.0
_MISSING = "OpenLineage's events need the package openlineage-python: `pip install openlineage-python`."
_ENGINE = "reflux"

Kind = Literal["START", "COMPLETE", "FAIL", "ABORT"]


def event(
    kind: Kind,
    at: float,
    run: str,
    project: str,
    stage: str,
    parent: str | None = None,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    models: Mapping[str, Mapping[str, str]] | None = None,
    error: str = "",
) -> "RunEvent":
    """One event of a stage's run.

    Args:
        kind: of the event.
        at: its time in seconds since the epoch.
        run: the key of the stage's journal, which its run in MLflow has as a tag.
        project: the project's name: the namespace of its jobs.
        stage: the job's name.
        parent: the key of the pipeline run's journal.
        inputs: each path that was read, with its hash.
        outputs: each path that was written, with its hash, or nothing where that is not known.
        models: those of the paths that are models, with facts such as their network.
        error: the sentence of a failure.
    """
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run, job_type_job, parent_run, processing_engine_run

    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(version(_ENGINE), _ENGINE)
    }
    if parent is not None:
        above = parent_run.Run(_run_id(parent)), parent_run.Job(project, PIPELINE)
        facets["parent"] = parent_run.ParentRunFacet(*above)
    if error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python")
    read, wrote = (_datasets(project, paths or {}, models or {}) for paths in (inputs, outputs))
    return RunEvent(
        eventType=RunState(kind),
        eventTime=datetime.fromtimestamp(at, UTC).isoformat(),
        run=Run(_run_id(run), facets),
        job=Job(project, stage, {"jobType": job_type_job.JobTypeJobFacet("BATCH", "REFLUX", "TASK")}),
        inputs=[InputDataset(**each) for each in read],
        outputs=[OutputDataset(**each) for each in wrote],
        producer=f"urn:{_ENGINE}:{version(_ENGINE)}",
    )


def require() -> None:
    """Refuse what needs OpenLineage's client where it is not installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("openlineage") is None:
        raise UserError(_MISSING)


def emit(kind: Kind, at: float, run: str, params: Params, stage: str, parent: str | None, **details: Any) -> None:
    """Send an event where ``OPENLINEAGE_URL`` is set; a receiver that does not take it costs a line of text.

    Args:
        kind: of the event.
        at: its time in seconds since the epoch.
        run: the key of the stage's journal.
        params: all of them.
        stage: its name.
        parent: the key of the pipeline run's journal.
        details: ``inputs``, ``outputs`` and ``error``, as for :func:`event`.
    """
    url = os.environ.get(URL)
    if not url:
        return
    if find_spec("openlineage") is None:
        print(f"Warning: {URL} is set, but no event is sent. {_MISSING}", file=sys.stderr)
        return
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    settings: dict[str, Any] = {"url": url, "timeout": _PATIENCE_S, "retry": {"total": 1, "connect": 1, "read": 1}}
    if endpoint := os.environ.get("OPENLINEAGE_ENDPOINT"):
        settings["endpoint"] = endpoint
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        settings["auth"] = {"type": "api_key", "apiKey": key}
    try:
        one = event(kind, at, run, params.project.name, stage, parent, models=models(params), **details)
        OpenLineageClient(transport=HttpTransport(HttpConfig.from_dict(settings))).emit(one)
    except Exception as error:  # whatever is wrong with the receiver or its address
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        print(f"Warning: {URL} did not take the event {kind} of {stage} ({reason}).", file=sys.stderr)


def models(params: Params) -> dict[str, dict[str, str]]:
    """The models that the stages leave, by their paths, with their role and network."""
    networks = {"teacher": params.pretrain.model, "student": params.student.model, "control": params.student.model}
    roles = {name: stage.role for name, stage in STAGES.items() if stage.role}
    return {str(ARTIFACTS / name / WEIGHTS): {"role": role, "network": networks[role]} for name, role in roles.items()}


def written(stage: str) -> dict[str, str]:
    """What a stage has left, each file with its hash; of folders, which may be large, the names alone."""
    found = sorted(path for path in (ARTIFACTS / stage).iterdir() if not path.name.startswith("."))
    return {str(path): sha256_file(path) if path.is_file() else "" for path in found}


def _datasets(project: str, paths: Mapping[str, str], models: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    space = f"{_ENGINE}://{project}"
    return [{"namespace": space, "name": path, "facets": _facets(path, sha, models)} for path, sha in paths.items()]


def _facets(path: str, sha256: str, models: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_type_dataset, dataset_version_dataset, tags_dataset

    facets: dict[str, Any] = {}
    if sha256:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(sha256)
    if path in models:
        facets["datasetType"] = dataset_type_dataset.DatasetTypeDatasetFacet("MODEL")
        tags = [tags_dataset.TagsDatasetFacetFields(key, value, "REFLUX") for key, value in models[path].items()]
        facets["tags"] = tags_dataset.TagsDatasetFacet(tags)
    else:
        facets["datasetType"] = dataset_type_dataset.DatasetTypeDatasetFacet("FILE")
    return facets


def _run_id(key: str) -> str:
    return str(uuid.UUID(key))
