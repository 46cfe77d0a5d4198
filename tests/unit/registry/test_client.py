import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _verify_schema
from requests.exceptions import ConnectionError as NoConnection
from sqlalchemy import create_engine

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import Journal
from reflux.components.registry import client


@pytest.fixture
def away(monkeypatch):
    """A call to a server that answers only at the third attempt; ``away.calls`` counts them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")

    def call() -> str:
        call.calls += 1
        if call.calls < 3:
            raise NoConnection
        return "answer"

    call.calls = 0
    return call


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("postgresql://ada:secret@db/mlflow", "postgresql://db/mlflow"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_the_address_hides_the_password(monkeypatch, uri, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert client.address() == address


def test_a_server_that_does_not_answer_is_tried_again(away):
    assert client.retry(away) == "answer"
    assert away.calls == 3


def test_patience_ends_with_one_sentence(away, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE_S", 0)
    with pytest.raises(client.Unreachable, match="MLflow at http://mlflow:5000 does not answer: start it"):
        client.retry(away)
    assert away.calls == 1


@pytest.mark.parametrize("error", [MlflowException("no such model"), KeyError("a defect")])
def test_other_errors_are_raised_at_once(error):
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        client.retry(fail)
    assert len(calls) == 1


def test_a_database_without_its_driver_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://ada:secret@db/mlflow")
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    sentence = r"^MLflow at mysql://db/mlflow needs the package mysqlclient: `pip install mysqlclient`\.$"
    with pytest.raises(UserError, match=sentence):
        client.connect()


def no_database(file: Path) -> None:
    file.write_text("nothing that SQLite knows " * 100)


def emptied(file: Path) -> None:
    file.touch()


def of_a_later_release(file: Path) -> None:
    """As Alembic finds it: MLflow's tables are incomplete, and their revision is unknown here."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("create table alembic_version (version_num varchar(32))")
        connection.execute("insert into alembic_version values ('ffffffffffff')")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (no_database, r"^MLflow's database sqlite:///.*mlflow\.db can't be read \(file is not a database\): restore"),
        (
            emptied,
            r"^MLflow's database .*/mlflow\.db is empty \(0 bytes\).*: restore a copy of it, or delete it to begin",
        ),
        (
            of_a_later_release,
            r"mlflow\.db is of another release than MLflow \d.*: copy it and run `mlflow db upgrade s",
        ),
    ],
)
def test_a_database_that_can_not_be_used_is_one_sentence_and_journals_wait(tmp_path, monkeypatch, make, sentence):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(tracking, "_SECONDS_TO_BEGIN", 0.2)
    with pytest.raises(UserError, match=sentence):
        client.connect()
    Journal("demo", "distill", {}).end("FINISHED")
    assert tracking.deliver() == 1


def test_a_database_that_another_process_is_making_is_waited_for(tmp_path, monkeypatch):
    file = tmp_path / "mlflow.db"
    file.touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    maker = threading.Timer(0.3, sqlite3.connect(file, check_same_thread=False).execute, ["create table a (b)"])
    maker.start()
    tracking.refuse_empty_database()
    maker.join()
    assert file.stat().st_size


def test_the_tables_of_another_release_are_one_sentence(tmp_path, monkeypatch):
    """As MLflow finds it, whose tables are complete then."""
    of_a_later_release(tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(client.Unreachable, match="is of another release than MLflow"), client.translate_errors():
        _verify_schema(create_engine(uri))


def test_a_number_that_no_database_holds_is_no_version(mlflow_home):
    with pytest.raises(UserError, match="No model is registered as shapes-student"):
        client.named(client.connect(), "shapes-student", "9" * 20)
