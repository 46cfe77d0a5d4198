"""What registered versions and open promotions refer to, which must stay."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reflux.components.registry import client
from reflux.components.registry.ledger import ledger
from reflux.components.registry.versions.logged_models import LOGGED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList


@dataclass(frozen=True)
class References:
    """What versions of registered models and open attempts of the ledger were made from, by ids and hashes.

    Attributes:
        files: hashes of the files that ship.
        data: DVC's hashes of datasets.
        soft_labels: keys of their stores.
    """

    runs: frozenset[str]
    models: frozenset[str]
    files: frozenset[str]
    data: frozenset[str]
    commits: frozenset[str]
    soft_labels: frozenset[str]
    flow_runs: frozenset[str]


def references(mlflow: "MlflowClient", project: str, model_name: str, named: Iterable[str]) -> References:
    """Collect what must stay.

    Versions of all registered models count, as those of another pipeline may share runs, teachers or data.

    Args:
        mlflow: the client.
        project: whose ledger may have open attempts.
        model_name: the registered model.
        named: weights that params name.
    """
    versions = every(lambda token: mlflow.search_model_versions(page_token=token))
    opened = [entry for entry in ledger.entries(mlflow, project, model_name) if entry.outcome is None]
    tags = [*(version.tags for version in versions), *(entry.lineage for entry in opened)]
    sources = [str(version.source) for version in versions]
    models = {source.removeprefix(LOGGED) for source in [*sources, *named] if source.startswith(LOGGED)}
    models |= _values(tags, "model_id", "teacher.model_id")
    runs = {str(version.run_id) for version in versions} | _values(tags, "run_id", "evaluate.run_id")
    waiting = list(models)
    while waiting:
        if model := client.if_exists(mlflow.get_logged_model, waiting.pop()):
            runs.add(str(model.source_run_id))
            teachers = {model.params[name] for name in ("teacher_model_id",) if name in model.params} - models
            models |= teachers
            waiting += teachers
    return References(
        runs=frozenset(runs),
        models=frozenset(models),
        files=_values(tags, "artifact_sha256"),
        data=_values(tags, "dvc.data_md5"),
        commits=_values(tags, "git.sha"),
        soft_labels=_values(tags, "soft_labels.key"),
        flow_runs=_values(tags, "prefect.flow_run_id"),
    )


def every(search: "Callable[[str | None], PagedList[Any]]") -> list[Any]:
    """All pages of a search."""
    page = search(None)
    found = list(page)
    while page.token:
        page = search(page.token)
        found += page
    return found


def _values(tags: Iterable[Mapping[str, str]], *names: str) -> frozenset[str]:
    return frozenset(each[name] for each in tags for name in names if name in each)
