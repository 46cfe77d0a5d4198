from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.registry.lineage import trace
from reflux.components.registry.register import register
from reflux.components.registry.versions import scoring
from reflux.components.registry.versions.files import fetch_files
from tests.integration.registry.faults import flip_byte, retag, sentence


def test_the_champion_is_scored_anew_on_a_new_test_split_and_the_change_is_said(home, model_name, registered, judge):
    judge(registered(right=180))
    home.evaluation(right=190, fingerprint="0" * 64)
    version = register(home.artifacts, model_name, home.experiment, home.lineage()).version

    outcome = judge(version)

    assert outcome.decision.champion.test_changed
    assert outcome.decision.champion.left_out == 0
    assert sentence(outcome, "champion").endswith("it was scored again on this one.")
    with pytest.raises(UserError, match="version 1 was evaluated on another test split"):
        judge(1)


def test_the_champion_is_not_compared_on_images_that_it_was_trained_on(home, model_name, registered, judge):
    """Of 200 test images of a new split, the champion knows 20 by heart; on the other 180 it is wrong 20 times."""
    register(home.evaluation(180, wrong_from=20, trained_on=range(20)), model_name, home.experiment, home.lineage())
    judge(1)
    home.evaluation(right=190, fingerprint="0" * 64)  # wrong on the first ten images, which do not count
    version = register(home.artifacts, model_name, home.experiment, home.lineage()).version

    outcome = judge(version)

    against = outcome.decision.champion
    assert (against.n, against.left_out) == (180, 20)
    assert (against.accuracy, against.challenger_accuracy) == (160 / 180, 1.0)
    assert "20 test images that the champion was trained on were left out." in sentence(outcome, "champion")


def test_a_champion_that_was_trained_on_all_test_images_is_compared_with_nothing(home, model_name, judge, aliases):
    register(home.evaluation(180, trained_on=range(200)), model_name, home.experiment, home.lineage())
    judge(1)
    version = register(home.evaluation(190), model_name, home.experiment, home.lineage()).version
    with pytest.raises(UserError, match=r"version 1, the champion, was trained on every image of the test split"):
        judge(version)
    assert aliases()["champion"] == 1


def test_a_champion_of_an_older_release_is_said_to_be_unknown(home, model_name, registered, judge):
    artifacts = home.evaluation(180, trained_on=range(20))
    path = artifacts / "evaluate" / "metrics.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "trained_on_sha256"})
    register(artifacts, model_name, home.experiment, home.lineage())
    judge(1)
    home.evaluation(right=190, fingerprint="0" * 64)

    outcome = judge(register(home.artifacts, model_name, home.experiment, home.lineage()).version)

    assert (outcome.decision.champion.n, outcome.decision.champion.left_out) == (200, None)
    assert "Whether it was trained on some of these images is not known" in sentence(outcome, "champion")


def test_a_changed_record_of_the_images_that_the_champion_was_trained_on_is_refused(model_name, registered, judge):
    judge(registered(right=180))
    flip_byte(model_name, 1, "evaluation/trained-on.npy")
    retag(model_name, 1)
    version = registered(right=190)
    with pytest.raises(UserError, match=r"trained-on\.npy, kept with .* version 1, is gone or was changed"):
        judge(version)
    assert "evaluation: trained-on.npy was changed since it was evaluated." in trace(model_name, 1).problems()


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
