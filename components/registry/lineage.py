"""The lineage of a version, link by link, and the versions that were made from something."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reflux.components.core.artifacts import ARTIFACTS, read_json, sha256_file
from reflux.components.core.contract import shipped
from reflux.components.core.errors import UserError
from reflux.components.core.runtime import lineage
from reflux.components.registry import client
from reflux.components.registry.text import markdown, urls
from reflux.components.registry.versions import integrity, sbom, signatures
from reflux.components.registry.versions.evaluated_run import LIVE, TRAINED_ON, lineage_key
from reflux.components.registry.versions.files import EVALUATION, VersionFiles, fetch_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

_NOT_RECORDED = "it was not recorded when the version was registered"


@dataclass(frozen=True)
class Node:
    """One link of the chain.

    Attributes:
        value: its id or hash; None if unknown.
        page: its page in a web UI; a full address if MLflow is a server.
        problem: the reason why the chain is broken here; None if it is not.
        children: the links that it was made from.
    """

    name: str
    value: str | None
    note: str = ""
    page: str | None = None
    problem: str | None = None
    children: "tuple[Node, ...]" = ()

    def problems(self) -> Iterator[str]:
        """A sentence on each break of the chain, at this node or below it."""
        if self.problem:
            yield f"{self.name}: {self.problem}."
        for child in self.children:
            yield from child.problems()


def trace(model_name: str, number: int) -> Node:
    """The tree of everything that a version was made from, each link looked up now.

    Raises:
        UserError: there is no such version.
        Unreachable: MLflow does not answer.
    """
    mlflow = client.connect()
    with client.translate_errors():
        version = client.version(mlflow, model_name, number)
        aliases = client.aliases(mlflow, model_name)
        tags = dict(version.tags)
        run = client.if_exists(mlflow.get_run, tags.get("run_id") or str(version.run_id))
        student = client.if_exists(mlflow.get_logged_model, str(version.source).rpartition("/")[2])
        if run is not None:
            tags.setdefault("experiment_id", run.info.experiment_id)
        if student is not None and "teacher_model_id" in student.params:
            tags.setdefault("teacher.model_id", student.params["teacher_model_id"])
        status = [tags.get("gate.status", "UNKNOWN"), *(f"@{name}" for name, at in aliases.items() if at == number)]
        return Node(
            "version",
            f"{model_name} version {number}",
            ", ".join(status),
            urls.address(urls.version(model_name, number)),
            children=(
                _model(mlflow, version, student, tags),
                _run(run, tags),
                _data(tags),
                _code(run, tags),
                _teacher(mlflow, tags),
                _soft_labels(tags),
                _decision(mlflow, tags),
            ),
        )


def made_from(model_name: str, prefix: str) -> "list[tuple[ModelVersion, str]]":
    """The versions with a hash or id that begins with ``prefix`` in their lineage, oldest first, each with its name.

    Raises:
        UserError: there is no such model, or no such version.
        Unreachable: MLflow does not answer.
    """
    mlflow = client.connect()
    with client.translate_errors():
        client.aliases(mlflow, model_name)
        versions = client.versions(mlflow, model_name)
    keys = markdown.LINEAGE | {"pretrained.sha256": "Pretrained weights (sha256)"}
    matches = [
        (version, label)
        for version in versions
        for key, label in keys.items()
        if version.tags.get(key, "").startswith(prefix)
    ]
    if not matches:
        raise UserError(
            f"No version of {model_name} was made from {prefix}: give a version's number, or the beginning of a "
            "commit, a data md5 or another hash that `reflux lineage VERSION` prints."
        )
    return matches


def _model(
    mlflow: "MlflowClient", version: "ModelVersion", student: "LoggedModel | None", tags: Mapping[str, str]
) -> Node:
    """The LoggedModel, with the file, its evaluation and its card as the registry has them now."""
    source = str(version.source).rpartition("/")[2]
    problem = None
    if student is None:
        problem = f"MLflow has no LoggedModel {source}"
    elif tags.get("model_id", source) != source:
        problem = f"the version's source was changed: it was registered from {tags['model_id']}"
    elif student.status != "READY":
        problem = f"it is {student.status}"
    page = urls.address(urls.logged_model(tags["experiment_id"], source)) if "experiment_id" in tags else None
    file_problem: str | None = None
    evaluation: tuple[Node, ...] = ()
    note = ""
    try:
        with fetch_files(version) as files:
            note = files.file.name
            evaluation = (*_evaluation(mlflow, version, files, tags), _bill(files), _signature(files))
    except UserError as error:
        file_problem = str(error).rstrip(".")
    children = (Node("file", tags.get("artifact_sha256"), note, problem=file_problem), *evaluation)
    return Node("model", source, student.params.get("network", "") if student else "", page, problem, children)


def _evaluation(
    mlflow: "MlflowClient", version: "ModelVersion", files: VersionFiles, tags: Mapping[str, str]
) -> tuple[Node, Node]:
    metrics, card = (files.folder / EVALUATION / name for name in ("metrics.json", "model-card.html"))
    problem, note = None, ""
    if not metrics.is_file():
        problem = "metrics.json is not kept with the version"
    elif lineage_key(metrics, files.sha256) != tags.get("lineage.key"):
        problem = "metrics.json was changed since the version was registered"
    else:
        content: dict[str, Any] = read_json(metrics)
        problem = _edited(mlflow, version, content) or _record_problem(files, content)
        accuracy = shipped(content).get("accuracy")
        note = f"test split of {content['test']['n']:,} images"
        note += f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else ""
    missing = None if card.is_file() else "model-card.html is not kept with the version"
    return (
        Node("evaluation", tags.get("test_fingerprint"), note, problem=problem),
        Node("card", "model-card.html", page=urls.address(urls.card(tags)), problem=missing),
    )


def _bill(files: VersionFiles) -> Node:
    """The bill of materials, which is optional: a version without one is whole."""
    path = files.folder / sbom.SBOM
    if not path.is_file():
        return Node("sbom", "none", "where it was registered, cyclonedx-python-lib was not installed")
    components = read_json(path)["components"]
    return Node("sbom", sbom.SBOM, f"{sum(each['type'] == 'library' for each in components):,} packages")


def _signature(files: VersionFiles) -> Node:
    problem = signatures.find_problem(files.folder)
    return Node("signature", signatures.describe(files.folder), problem=problem)


def _edited(mlflow: "MlflowClient", version: "ModelVersion", metrics: Mapping[str, Any]) -> str | None:
    try:
        integrity.check(mlflow, version, metrics)
    except UserError as error:
        return str(error).rstrip(".")
    return None


def _record_problem(files: VersionFiles, metrics: Mapping[str, Any]) -> str | None:
    """A sentence on the first record of the evaluation that is missing or was changed.

    Those are the predictions that the smoke test repeats, and the images that the version was made from, which versions
    of older releases lack.
    """
    records = {"probe.npz": metrics.get("probe_sha256")}
    records |= {TRAINED_ON: metrics["trained_on_sha256"]} if "trained_on_sha256" in metrics else {}
    for name, expected in records.items():
        path = files.folder / EVALUATION / name
        if not path.is_file():
            return f"{name} is not kept with the version"
        if sha256_file(path) != expected:
            return f"{name} was changed since it was evaluated"
    return None


def _run(run: "Run | None", tags: Mapping[str, str]) -> Node:
    run_id = tags.get("run_id")
    flow = tags.get("prefect.flow_run_id")
    children = (
        _params(run, tags),
        Node("flow run", flow, "", urls.flow_run(flow) if flow else None, None if flow else _NOT_RECORDED),
    )
    if run is None:
        return Node("run", run_id, problem="MLflow has no such run" if run_id else _NOT_RECORDED, children=children)
    page = urls.address(urls.run(run.info.experiment_id, run.info.run_id))
    run_tags = run.data.tags
    shared = ("git.sha", "dvc.data_md5", "params.sha256")
    differing = [key for key in shared if run_tags.get(key, lineage.NONE) not in (lineage.NONE, tags.get(key))]
    problem = None
    if run.info.lifecycle_stage == "deleted":
        problem = "it was deleted in MLflow"
    elif differing:
        problem = f"it says another {', '.join(differing)} than the version"
    note = f"{run.info.run_name}, {run.info.status}"
    return Node("run", run.info.run_id, note, page, problem, children)


def _params(run: "Run | None", tags: Mapping[str, str]) -> Node:
    import mlflow
    from mlflow.exceptions import MlflowException

    sha256 = tags.get("params.sha256")
    if sha256 is None or run is None:
        return Node("params", sha256, problem=None if sha256 else _NOT_RECORDED)
    with tempfile.TemporaryDirectory(prefix="reflux-") as temporary:
        uri = f"runs:/{run.info.run_id}/params.yaml"
        try:
            actual = sha256_file(Path(mlflow.artifacts.download_artifacts(uri, dst_path=temporary)))
        except (MlflowException, OSError):
            actual = None
    changed = "the params.yaml that its run keeps was changed" if actual else "its run does not keep params.yaml"
    problem = None if actual == sha256 else changed
    return Node("params", sha256, "params.yaml", problem=problem)


def _data(tags: Mapping[str, str]) -> Node:
    md5 = tags.get("dvc.data_md5")
    if md5 is None:
        return Node("data", None, problem=_NOT_RECORDED)
    where = lineage.where_data_is_known(md5)
    problem = "neither dvc.lock nor DVC's cache nor a commit of this checkout knows it: `git fetch` and `dvc fetch` may"
    return Node("data", md5, f"known to {where}" if where else "", problem=None if where else problem)


def _code(run: "Run | None", tags: Mapping[str, str]) -> Node:
    sha = tags.get("git.sha")
    if sha is None:
        return Node("code", None, problem=_NOT_RECORDED)
    dirty = run is not None and run.data.tags.get("git.dirty") == "true"
    note = "with changes that were not committed" if dirty else ""
    problem = None if lineage.has_commit(sha) else "this checkout does not have the commit: `git fetch` may bring it"
    return Node("code", sha, note, problem=problem)


def _teacher(mlflow: "MlflowClient", tags: Mapping[str, str]) -> Node:
    weights, sha256 = tags.get("pretrained.weights"), tags.get("pretrained.sha256")
    note = ", ".join(filter(None, [tags.get("pretrained.model"), weights if sha256 else None]))
    # Random weights and those from timm's hub have no file that could be hashed.
    origin = Node("pretrained", sha256 or weights, note, problem=None if weights else _NOT_RECORDED)
    model_id = tags.get("teacher.model_id")
    if model_id is None:
        return Node("teacher", None, problem=_NOT_RECORDED, children=(origin,))
    model = client.if_exists(mlflow.get_logged_model, model_id)
    if model is None:
        return Node("teacher", model_id, problem=f"MLflow has no LoggedModel {model_id}", children=(origin,))
    note = f"{model.params.get('network', '')}, weights sha256 {model.tags.get('weights.sha256', 'unknown')[:12]}…"
    problem = None if model.status == "READY" else f"it is {model.status}"
    page = urls.address(urls.logged_model(model.experiment_id, model_id))
    return Node("teacher", model_id, note, page, problem, (origin,))


def _soft_labels(tags: Mapping[str, str]) -> Node:
    key = tags.get("soft_labels.key")
    if tags.get("trained") == "labels":
        return Node("soft labels", None, "none: it was trained on the labels alone")
    if key is None or key == LIVE:
        note = "the teacher predicted at every step" if key else ""
        return Node("soft labels", key, note, problem=None if key else _NOT_RECORDED)
    manifest = ARTIFACTS / "label" / "manifest.json"
    here = manifest.is_file() and read_json(manifest).get("key") == key
    return Node("soft labels", key, f"in {manifest.parent}" if here else "not in this checkout's artifacts")


def _decision(mlflow: "MlflowClient", tags: Mapping[str, str]) -> Node:
    """The attempt in the ledger that set the version's status."""
    run_id = tags.get("gate.run_id")
    if run_id is None:
        return Node("decision", None, "not decided yet")
    run = client.if_exists(mlflow.get_run, run_id)
    if run is None or run.info.lifecycle_stage == "deleted":
        return Node("decision", run_id, problem="its run was deleted in MLflow")
    note = f"{run.info.run_name}, by {run.data.tags.get('promotion.by', 'someone')}"
    return Node("decision", run_id, note, urls.address(urls.run(run.info.experiment_id, run_id)))
