import sys

import pytest
from mlflow.exceptions import MlflowException
from requests.exceptions import ConnectionError as NoConnection

from reflux.components.core.errors import UserError
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
