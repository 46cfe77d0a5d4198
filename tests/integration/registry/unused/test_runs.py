"""What nothing refers to is found and removed; everything else stays."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from reflux.components.core.runtime import tracking
from reflux.components.registry import client
from reflux.components.registry.ledger import ledger
from reflux.components.registry.unused import runs as unused
from reflux.components.registry.unused.references import references
from tests.nights import night, with_file
from tests.servers import mlflow_server

BEFORE = datetime.now(UTC) - timedelta(days=90)
NOTHING = unused.Unused([], [])


@pytest.fixture
def project(home, model_name) -> str:
    """A project of its own, whose last runs, which stay in any case, are all new; returns its experiment's id."""
    experiment = str(tracking.experiment_id(MlflowClient(), model_name))
    for _ in range(unused.LAST):
        night(experiment, 1)
    return experiment


@pytest.fixture
def find(model_name):
    """Finds what can go of the test's project."""

    def find(present=(), named=()) -> unused.Unused:
        mlflow = client.connect()
        kept = references(mlflow, model_name, model_name, named)
        return unused.find(mlflow, [model_name], kept, present, BEFORE)

    return find


def ids(found: unused.Unused) -> set[str]:
    return {run.info.run_id for run in found.runs}


def test_an_old_run_goes_with_its_children_and_one_that_something_refers_to_stays_with_them(project, find):
    top = night(project, 100)
    stage = night(project, 100, "stage", parent=top)
    gone = {top, stage, night(project, 95, status="FAILED")}
    kept = night(project, 100)
    child = night(project, 100, "stage", parent=kept)
    found = [run.info.run_id for run in find(present=[child]).runs]
    assert set(found) == gone
    assert found.index(stage) < found.index(top), "broken off, no child is left without its parent"
    assert ids(find()) == {*gone, kept, child}


def test_what_is_new_open_a_search_a_promotion_or_of_somebody_else_stays(project, find):
    night(project, 89)
    night(project, 200, status="RUNNING")
    night(project, 200, "promotion")
    night(project, 200, None)
    search = night(project, 200, "tune")
    night(project, 200, "tune trial", parent=search)
    top = night(project, 200)
    night(project, 89, "stage", parent=top)
    assert ids(find()) == set()


def test_the_last_runs_of_a_project_that_slept_stay(home, model_name, find):
    experiment = tracking.experiment_id(MlflowClient(), model_name)
    nights = [night(experiment, 400 - each) for each in range(unused.LAST + 3)]
    assert ids(find()) == set(nights[:3])


def test_runs_whose_results_a_run_that_stays_has_restored_stay(project, find):
    maker = night(project, 300)
    teacher = night(project, 300, "stage", parent=maker)
    killed = night(project, 300, "stage", reflux_journal="4" * 32)
    night(project, 10, restored_finetune=teacher, restored_label=f"reflux.journal={'4' * 32}")
    other = night(project, 300, restored_finetune=teacher)
    assert ids(find()) == {other}
    assert {maker, teacher, killed}.isdisjoint(ids(find()))


def test_runs_and_models_of_every_version_stay_until_the_version_is_deleted(home, model_name, project, find):
    mlflow = MlflowClient()
    run = night(project, 300)
    teacher = old_model(home, project, "teacher", night(project, 300, "stage"))
    student = old_model(home, project, "student", run, teacher_model_id=teacher)
    mine = old_model(home, project, "mine", run)
    mlflow.create_registered_model(model_name)
    mlflow.create_model_version(model_name, f"models:/{student}", run, tags={"run_id": run})
    report = night(project, 300, "bench file")
    mlflow.log_param(report, "sha256", "7" * 64)
    mlflow.set_model_version_tag(model_name, "1", "artifact_sha256", "7" * 64)
    assert find() == NOTHING

    mlflow.delete_model_version(model_name, "1")
    found = find()
    assert ids(found) >= {run, report}
    assert {model.model_id for model in found.models} == {student, teacher}, f"and {mine} is not Reflux's"
    found = find(named=[f"models:/{student}"])
    assert run not in ids(found)
    assert found.models == []


def test_what_an_open_attempt_refers_to_stays_until_it_is_closed(home, model_name, project, find):
    run, mlflow = night(project, 300), client.connect()
    at = "2026-01-01T00:00:00+00:00"
    intent = ledger.Intent(
        "promote", model_name, 1, "promoted", "me", "", at, None, None, "", "", lineage={"run_id": run}
    )
    attempt = ledger.begin(mlflow, model_name, intent)
    assert ids(find()) == set()
    ledger.end(mlflow, attempt, "failed", "Nothing was moved.")
    assert ids(find()) == {run}


def test_what_was_marked_is_removed_for_good_by_the_same_or_the_next_call(home, model_name, project, find):
    mlflow = client.connect()
    runs = [night(project, 100 + each) for each in range(3)]
    file = with_file(runs[0])
    model = old_model(home, project, "student", runs[0])
    by_hand = night(project, 100)
    mlflow.delete_run(by_hand)
    assert unused.size(run.info.artifact_uri for run in find().runs) == file.stat().st_size

    calls = iter(range(3))

    class Killed(BaseException):
        """Stands for kill -9 after the second run."""

    real = mlflow.delete_run
    with pytest.MonkeyPatch.context() as patch:

        def until_killed(run_id: str) -> None:
            if next(calls) == 2:
                raise Killed
            real(run_id)

        patch.setattr(mlflow, "delete_run", until_killed)
        with pytest.raises(Killed):
            unused.mark(mlflow, model_name, find)
    assert len(find().runs) == 1
    assert len(unused.marked(mlflow, [model_name]).runs) == 2

    unused.mark(mlflow, model_name, find)
    begun = unused.marked(mlflow, [model_name])
    assert (ids(begun), [each.model_id for each in begun.models]) == (set(runs), [model])
    unused.purge(mlflow, begun)
    assert find() == unused.marked(mlflow, [model_name]) == NOTHING
    assert not file.exists()
    deleted = mlflow.search_runs([project], run_view_type=ViewType.DELETED_ONLY)
    assert [run.info.run_id for run in deleted] == [by_hand], "what a person has deleted can still be restored"


@pytest.mark.slow
def test_of_a_server_runs_are_marked_alone(home, model_name, project, find, tmp_path, monkeypatch):
    run = night(project, 100)
    with mlflow_server(tmp_path, home.database) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        mlflow = client.connect()
        assert unused.is_server(mlflow)
        unused.mark(mlflow, model_name, find)
        assert find() == unused.marked(mlflow, [model_name]) == NOTHING
        assert mlflow.get_run(run).info.lifecycle_stage == "deleted"
        assert unused.size(["mlflow-artifacts:/1/2"]) is None


def old_model(home, experiment: str, name: str, run: str, **params: str) -> str:
    """A LoggedModel of long ago, with a file; returns its id."""
    mlflow = MlflowClient()
    model = mlflow.create_logged_model(experiment, name, run, params=params)
    (home.folder / "MLmodel").write_text("flavors: {}\n")
    (folder := Path(home.folder, "logged")).mkdir(exist_ok=True)
    (home.folder / "MLmodel").rename(folder / "MLmodel")
    mlflow.log_model_artifacts(model.model_id, str(folder))
    mlflow.finalize_logged_model(model.model_id, "READY")
    home.sql("UPDATE logged_models SET creation_timestamp_ms = 1 WHERE model_id = :id", id=model.model_id)
    return str(model.model_id)
