from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient

from components.core.artifacts import read_json, write_json
from components.core.errors import UserError
from components.core.images.shards import open_shard
from components.registry.register import register
from components.registry.versions import scoring
from components.registry.versions.files import fetch_files
from tests.integration.registry.faults import sentence


def test_the_champion_is_scored_anew_on_a_new_test_split_and_the_change_is_said(home, model_name, registered, judge):
    judge(registered(right=180))
    home.evaluation(right=190, fingerprint="0" * 64)
    version = register(home.artifacts, model_name, home.experiment, home.lineage()).version

    outcome = judge(version)

    assert outcome.decision.champion.test_changed
    assert "scored again on this one" in sentence(outcome, "champion")
    with pytest.raises(UserError, match="version 1 was evaluated on another test split"):
        judge(1)


def test_metrics_that_the_file_does_not_reproduce_are_refused(home, model_name, judge):
    artifacts = home.evaluation(right=166)
    path = artifacts / "evaluate" / "metrics.json"
    metrics = read_json(path)
    metrics["shipped"]["onnx"]["accuracy"] = 0.97
    write_json(path, metrics)
    version = register(artifacts, model_name, home.experiment, home.lineage()).version
    with pytest.raises(UserError, match=r"scores 0\.8300 .* says 0\.9700"):
        judge(version)


def test_an_empty_test_split_is_refused(home, registered, judge):
    version = registered(right=180)
    for name in ("images", "labels", "ids"):
        path = home.artifacts / "ingest" / "shards" / "test" / f"{name}.npy"
        np.save(path, np.load(path)[:0])
    with pytest.raises(UserError, match="holds no images"):
        judge(version)


def test_a_champion_of_other_classes_is_scored_by_the_names_of_its_classes(home, registered, model_name):
    registered(right=200)
    registered_version = MlflowClient().get_model_version(model_name, "1")
    test = open_shard(home.artifacts / "ingest" / "shards" / "test")
    with fetch_files(registered_version) as version:
        known = replace(version, metadata=version.metadata | {"classes": ["shirt", "hat", "boot"]})
        predicted = scoring._predicted(known, test, ["boot", "dress", "shirt"])
    assert predicted[:3].tolist() == [2, -1, 0]
