"""Figures and files that were changed in MLflow are detected, named and refused."""

import time

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from PIL import Image

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.predict import predict
from reflux.components.registry.promote import approve
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import flip_byte, retag


@pytest.mark.parametrize(
    ("tag", "value", "measured"),
    [("accuracy", "0.99", "0.9"), ("size_bytes", "1", r"\d+"), ("test_fingerprint", "0" * 64, "f" * 64)],
)
@pytest.mark.usefixtures("keys")
def test_a_tag_that_was_edited_is_named_with_what_was_measured(model_name, registered, judge, tag, value, measured):
    version = registered(right=180)
    MlflowClient().set_model_version_tag(model_name, str(version), tag, value)
    with pytest.raises(UserError, match=rf"version 1 were edited in MLflow: the tag {tag} is {value}, .* {measured}"):
        judge(version)
    assert client.aliases(MlflowClient(), model_name) == {"challenger": 1}


@pytest.mark.usefixtures("keys")
def test_a_metric_of_the_logged_model_that_was_edited_is_named(home, model_name, registered, judge):
    mlflow = MlflowClient()
    version = registered(right=180)
    registered_version = mlflow.get_model_version(model_name, str(version))
    model = mlflow.get_logged_model(registered_version.source.removeprefix("models:/"))
    real = next(metric for metric in model.metrics if metric.key == "test/accuracy")
    later = int(time.time() * 1000) + 1000
    edited = Metric(real.key, 0.99, later, 0, real.model_id, real.dataset_name, real.dataset_digest, home.run_id)
    mlflow.log_batch(home.run_id, metrics=[edited])
    with pytest.raises(UserError, match=r"the metric test/accuracy is 0\.99, measured was 0\.9; set them back"):
        judge(version)


@pytest.mark.usefixtures("keys")
def test_a_version_that_was_edited_while_it_awaited_approval_is_not_approved(home, model_name, registered, judge):
    version = registered(right=180)
    assert judge(version, approval="human").outcome == "awaiting approval"
    MlflowClient().set_model_version_tag(model_name, str(version), "accuracy", "0.99")
    with pytest.raises(UserError, match=r"the tag accuracy is 0\.99"):
        approve(home.experiment, model_name, version, "looks good")
    assert "champion" not in client.aliases(MlflowClient(), model_name)


def test_a_swapped_source_is_refused_by_promote_predict_and_rollback(home, model_name, registered, judge):
    for right in (165, 180):
        judge(registered(right))
    assert client.aliases(MlflowClient(), model_name) == {"challenger": 2, "champion": 2, "previous": 1}
    swap(home, model_name, 1)
    Image.new("L", (16, 16)).save(home.folder / "black.png")
    for attempt in (
        lambda: judge(1, again=True),
        lambda: rollback(home.experiment, model_name, "worse"),
        lambda: list(predict([home.folder / "black.png"], f"models:/{model_name}/1")),
    ):
        with pytest.raises(UserError, match=r"A file of .* version 1 was changed"):
            attempt()
    assert client.aliases(MlflowClient(), model_name)["champion"] == 2


def test_an_evaluation_that_was_changed_with_its_answers_is_refused_by_approve_and_rollback(
    home, model_name, registered, judge
):
    for right in (165, 180):
        judge(registered(right))
    registered(right=199)
    judge(3, approval="human")
    for version in (1, 3):
        flip_byte(model_name, version, "evaluation/metrics.json")
    for attempt in (
        lambda: approve(home.experiment, model_name, 3, "looks good"),
        lambda: rollback(home.experiment, model_name, "worse"),
    ):
        with pytest.raises(UserError, match=r"A file of .* version [13] was changed, added or removed"):
            attempt()
    for version in (1, 3):
        retag(model_name, version)
        with pytest.raises(UserError, match=r"The evaluation kept with .* version [13] was changed since"):
            judge(version, again=True)
    for attempt in (
        lambda: approve(home.experiment, model_name, 3, "looks good"),
        lambda: rollback(home.experiment, model_name, "worse"),
    ):
        with pytest.raises(UserError, match=r"version [13] was on other files than those of its tag files_sha256"):
            attempt()
    assert client.aliases(MlflowClient(), model_name) == {"challenger": 3, "champion": 2, "previous": 1}


def swap(home, model_name: str, version: int) -> None:
    """Point a version at the files of the next one, in MLflow's database: its interface has no way to do it."""
    [(source, stored)] = home.sql(
        "SELECT source, storage_location FROM model_versions WHERE name = :name AND version = :version",
        name=model_name,
        version=version + 1,
    )
    home.sql(
        "UPDATE model_versions SET source = :source, storage_location = :stored"
        " WHERE name = :name AND version = :version",
        source=source,
        stored=stored,
        name=model_name,
        version=version,
    )
