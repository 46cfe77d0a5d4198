"""Answers that get lost on the way: MLflow carried a request out, and its client sends it again."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from mlflow import MlflowClient

from reflux.components.registry import client
from reflux.components.registry.history import History, history
from reflux.components.registry.ledger.commit import ChampionMoved, commit, reconcile
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import ready
from tests.servers import mlflow_server

SENT = [
    "create_logged_model",
    "create_model_version",
    "create_registered_model",
    "create_run",
    "delete_model_version_tag",
    "delete_tag",
    "finalize_logged_model",
    "log_artifact",
    "log_batch",
    "log_inputs",
    "log_model_artifacts",
    "log_outputs",
    "log_text",
    "set_logged_model_tags",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_terminated",
    "update_model_version",
    "update_registered_model",
    "update_run",
]


@pytest.fixture
def story(home, model_name, registered, judge) -> Callable[[], History]:
    """Two promotions, one that came too late, and a rollback; returns what the history has of them."""

    def run() -> History:
        for right in (170, 190):
            judge(registered(right))
        with pytest.raises(ChampionMoved):
            commit(MlflowClient(), home.experiment, ready(model_name, 1, 1))
        rollback(home.experiment, model_name, "worse")
        return history(home.experiment, model_name)

    return run


def check(home, past: History) -> None:
    """Each attempt is there once, closed, and nothing waits for anybody."""
    mlflow = MlflowClient()
    second = max(int(version.version) for version in client.versions(mlflow, past.model))  # 3, where 2 was a twin
    assert [(entry.version, entry.outcome) for entry in past.entries] == [
        (1, "rolled back"),
        (1, "overtaken"),
        (second, "promoted"),
        (1, "promoted"),
    ]
    assert (past.champion, past.previous, past.by_hand, past.undecided) == (1, second, [], [])
    runs = mlflow.search_runs([entry.experiment_id for entry in past.entries[:1]])
    assert not [tag for run in runs for tag in run.data.tags if tag.startswith("promotion.intent")]
    assert [run.info.status for run in runs if run.info.status == "RUNNING"] == []
    assert reconcile(mlflow, home.experiment, past.model) == []


@pytest.mark.parametrize("method", SENT)
def test_a_request_that_is_sent_twice_changes_nothing(home, story, monkeypatch, method):
    """As over HTTP, where the client never sees the answer to the first one."""
    once = getattr(MlflowClient, method)

    def twice(*args, **kwargs):
        once(*args, **kwargs)
        return once(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, method, twice)
    past = story()
    monkeypatch.undo()
    check(home, past)


class Lossy(ThreadingHTTPServer):
    """Passes requests on to a server, and drops its answer to the first one whose path ends with ``ending``."""

    def __init__(self, server: str) -> None:
        self.server, self.ending, self.lost = server, "", 0
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Lossy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        answer = requests.request(self.command, self.server.server + self.path, data=body, headers=kind, timeout=60)
        if self.server.ending and self.path.endswith(self.server.ending) and not self.server.lost:
            self.server.lost += 1
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def lossy(home, tmp_path, monkeypatch) -> Iterator[Lossy]:
    with mlflow_server(tmp_path, home.database) as running:
        proxy = Lossy(running.uri)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_port}")
        yield proxy
        proxy.shutdown()
        proxy.server_close()


@pytest.mark.long
@pytest.mark.parametrize("ending", ["runs/delete-tag", "runs/create", "outputs", "model-versions/create"])
def test_an_answer_that_a_network_loses_changes_nothing(home, lossy, story, ending):
    lossy.ending = ending
    check(home, story())
    assert lossy.lost == 1
