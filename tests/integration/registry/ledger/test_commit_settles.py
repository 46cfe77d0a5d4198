"""An attempt that can't be finished holds up nobody: each is settled by itself, or closed as failed."""

import json
from dataclasses import asdict, replace

import pytest
from mlflow import MlflowClient

from reflux.components.core.errors import UserError
from reflux.components.registry.history import history
from reflux.components.registry.ledger import ledger, proof
from reflux.components.registry.ledger.commit import reconcile
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import ready


def begun(home, intent) -> str:
    """An attempt that broke off right after it and its decision were written down."""
    mlflow = MlflowClient()
    run_id = ledger.begin(mlflow, home.experiment, intent)
    if intent.record is not None:
        proof.log(mlflow, run_id, intent.record)
    return run_id


def damage(run_id: str, text: str) -> None:
    MlflowClient().set_tag(run_id, "promotion.intent.0", text)


@pytest.fixture
def two(registered, judge, aliases):
    """Two versions that were champion, and a third that waits."""
    for right in (160, 170):
        judge(registered(right))
    registered(right=180)
    assert aliases() == {"challenger": 3, "champion": 2, "previous": 1}


BREAK = {
    "its version is deleted": (
        lambda model, run: MlflowClient().delete_model_version(model, "3"),
        "has no version 3",
    ),
    "its intent is damaged": (lambda model, run: damage(run, "{"), "can't be read"),
    "its intent is of other fields": (lambda model, run: damage(run, "{}"), "can't be read"),
    "its intent is of another type": (lambda model, run: damage(run, json.dumps({"tags": 3})), "can't be read"),
    "its intent is deleted": (lambda model, run: MlflowClient().delete_tag(run, "promotion.intent.0"), "can't be read"),
}


@pytest.mark.parametrize("how", BREAK)
def test_an_attempt_that_can_not_be_finished_is_closed_as_failed_and_the_others_are_settled(
    home, model_name, two, aliases, how
):
    stuck = begun(home, replace(ready(model_name, 3, 2), outcome="rejected", aliases={}))
    break_it, why = BREAK[how]
    break_it(model_name, stuck)
    whole = begun(home, ready(model_name, 1, 2))

    settled = {entry.run_id: entry for entry in reconcile(MlflowClient(), home.experiment, model_name)}

    assert settled[stuck].outcome == "failed"
    assert why in settled[stuck].why
    assert settled[whole].outcome == "promoted"
    assert aliases()["champion"] == 1
    assert reconcile(MlflowClient(), home.experiment, model_name) == []
    assert "failed" in {entry.outcome for entry in history(home.experiment, model_name).entries}
    assert rollback(home.experiment, model_name, "worse") == (2, 1)


def test_an_attempt_of_a_newer_release_is_finished_without_the_fields_that_only_it_knows(
    home, model_name, two, aliases
):
    intent = ready(model_name, 3, 2)
    run_id = begun(home, intent)
    damage(run_id, json.dumps(asdict(intent) | {"countersigned_by": "eve", "regions": {"eu": [1]}}))
    (entry,) = reconcile(MlflowClient(), home.experiment, model_name)
    assert (entry.outcome, aliases()["champion"]) == ("promoted", 3)


def test_texts_longer_than_a_column_are_cut_before_anything_moves(home, model_name, two, aliases):
    assert rollback(home.experiment, model_name, "x" * 9000) == (1, 2)
    assert aliases()["champion"] == 1
    newest = history(home.experiment, model_name).entries[0]
    assert newest.reason.startswith("xxx")
    assert len(newest.reason) == 8000
    model = MlflowClient().get_registered_model(model_name)
    version = MlflowClient().get_model_version(model_name, "2")
    assert len(model.description) == 5000
    assert model.description.endswith("…")
    assert all(len(value) <= 5000 for value in version.tags.values())


def test_an_entry_whose_tags_were_deleted_is_still_listed(home, model_name, two):
    mlflow = MlflowClient()
    newest = history(home.experiment, model_name).entries[0]
    for tag in ("promotion.by", "promotion.reason", "promotion.from", "promotion.why", "promotion.action"):
        mlflow.delete_tag(newest.run_id, tag)
    mlflow.set_tag(newest.run_id, "promotion.version", "two")
    entries = history(home.experiment, model_name).entries
    assert [(entry.by, entry.version) for entry in entries if entry.run_id == newest.run_id] == [("somebody", 0)]


def test_a_ledger_that_was_deleted_is_one_sentence(home, model_name, two):
    mlflow = MlflowClient()
    number = mlflow.get_experiment_by_name(ledger.experiment(home.experiment)).experiment_id
    mlflow.delete_experiment(number)
    sentence = f"restore it with `mlflow experiments restore --experiment-id {number}`"
    try:
        for command in (history, lambda *of: rollback(*of, "worse")):
            with pytest.raises(UserError, match=sentence):
                command(home.experiment, model_name)
    finally:
        mlflow.restore_experiment(number)
