"""Score the challenger and the champion on the same frozen test split."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reflux.components.core.contract import shipped
from reflux.components.core.data.shards import Shard, open_shard
from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.policy.comparison import ChampionEvaluation, Measured, compare
from reflux.components.registry.versions.files import VersionFiles, fetch_files, read_evaluation, read_trained_on

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from reflux.components.core.export.latency import SideBySide

_LATENCY_IMAGES = 32


def own_evaluation(challenger: VersionFiles, version: "ModelVersion", dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Read the version's own metrics.

    Raises:
        UserError: they are not those that it was registered with, or were measured on another test split.
    """
    metrics = read_evaluation(version, challenger)
    if metrics["test"]["fingerprint"] != dataset["fingerprints"]["test"]:
        raise UserError(
            f"{version.name} version {challenger.number} was evaluated on another test split than the present one: run "
            "`reflux run` first."
        )
    return metrics


def compare_with_champion(
    mlflow: "MlflowClient",
    artifacts: Path,
    version: "ModelVersion",
    challenger: VersionFiles,
    metrics: Mapping[str, Any],
    champion: int | None,
    dataset: Mapping[str, Any],
    resamples: int,
    seed: int,
) -> ChampionEvaluation | None:
    """Score and time both on the same images; returns None if there is no champion.

    Test images that the champion was trained on are left out: it has an advantage there that production does not have.

    Raises:
        UserError: the test split is empty or the champion was trained on all of it, a file was changed, or the
            challenger does not reproduce its evaluation.
    """
    test = open_shard(artifacts / "ingest" / "shards" / "test")
    if not len(test):
        raise UserError(
            "The test split holds no images, so no model can be judged: set ingest.split.test above 0, or add a folder "
            "or file named test."
        )
    ours = _measured(challenger, test, dataset["classes"])
    _check_reproduced(metrics, float((ours.predicted == test.labels).mean()), len(test))
    if champion is None:
        return None
    champion_version = client.version(mlflow, version.name, champion)
    test_changed = champion_version.tags.get("test_fingerprint") != dataset["fingerprints"]["test"]
    with fetch_files(champion_version) as incumbent:
        same = incumbent.sha256 == challenger.sha256
        theirs = ours if same else _measured(incumbent, test, dataset["classes"])
        timed = None if same else _timed(challenger, incumbent, test)
        known = read_trained_on(champion_version, incumbent)
    new = np.ones(len(test), dtype=bool) if known is None else ~np.isin(test.ids, known)
    if not new.any():
        raise UserError(
            f"{version.name} version {champion}, the champion, was trained on every image of the test split, so "
            "nothing can be compared with it: give the dataset test images of its own."
        )
    left_out = None if known is None else int((~new).sum())
    ours, theirs = (replace(each, predicted=each.predicted[new]) for each in (ours, theirs))
    return compare(test.labels[new], ours, theirs, timed, champion, test_changed, resamples, seed, left_out)


def _measured(files: VersionFiles, test: Shard, classes: list[str]) -> Measured:
    return Measured(files.sha256, files.file.stat().st_size, _predicted(files, test, classes))


def _predicted(files: VersionFiles, test: Shard, classes: list[str]) -> npt.NDArray[np.int64]:
    """Predicted classes [N] in the order of ``classes``; -1 for a class that the dataset no longer has."""
    order = np.array([classes.index(name) if name in classes else -1 for name in files.classes])
    return order[files.network().logits(test.images).argmax(axis=1)]


def _timed(challenger: VersionFiles, champion: VersionFiles, test: Shard) -> "SideBySide":
    from reflux.components.core.export.latency import side_by_side

    images = np.asarray(test.images[:_LATENCY_IMAGES])
    ours, theirs = (files.network().fit(images) for files in (challenger, champion))
    return side_by_side(challenger.file, champion.file, ours, theirs)


def _check_reproduced(metrics: Mapping[str, Any], accuracy: float, n: int) -> None:
    """Refuse figures that the file doesn't reproduce, except for near-ties that another machine rounds differently."""
    claimed = shipped(metrics).get("accuracy")
    if claimed is not None and abs(claimed - accuracy) > max(0.001, 1.5 / n):
        raise UserError(
            f"The file scores {accuracy:.4f} on the test split where its evaluation says {claimed:.4f}: "
            "evaluate it again (`reflux run`)."
        )
