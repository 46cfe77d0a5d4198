"""The boards in a real MLflow: written, changed, edited by people, refused by servers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
import requests

from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import Journal
from reflux.components.observe.boards import declared, keep
from reflux.components.observe.boards.view import TAG, Line, Section
from tests.integration.observe.boards.runs import retrain
from tests.servers import mlflow_server

CHAMPION = "In production: [clothes version 1](#/models/clothes/versions/1)."


def tags() -> dict[str, str]:
    return mlflow.MlflowClient().get_experiment_by_name("demo").tags


def views() -> dict[str, dict]:
    return {key.removeprefix(TAG): json.loads(value) for key, value in tags().items() if key.startswith(TAG)}


def test_the_boards_and_the_note_are_written_once(mlflow_home):
    assert keep.keep("demo", CHAMPION) == []  # no experiment, no boards
    retrain()
    assert keep.keep("demo", CHAMPION) == []
    first = tags()
    assert {slug: view["name"] for slug, view in views().items()} == {
        slug: f"{board.name} v1" for slug, board in declared.BOARDS.items()
    }
    links, _, champion, *_ = first["mlflow.note.content"].split("\n")
    assert links.startswith("Boards: [Retraining health](#/experiments/1/runs?viewStateShareKey=")
    assert champion == CHAMPION
    assert keep.keep("demo", CHAMPION) == []
    assert keep.keep("demo", None) == []
    assert tags() == first


def test_the_curves_are_of_the_newest_retrains_that_trained(mlflow_home):
    for _ in range(5):
        retrain()
    for _ in range(4):
        nothing = Journal("demo", "nothing changed", {"run_kind": "pipeline"})
        nothing.metrics({"test/student_accuracy": 0.5}, step=None)
        nothing.end("FINISHED")
        tracking.deliver()
    keep.keep("demo", CHAMPION)
    wanted = json.loads(views()[declared.CURVES.slug]["state"])["searchFilter"]
    runs = mlflow.MlflowClient().search_runs(["1"], wanted)
    assert len(runs) == declared.CURVES.newest
    assert {run.data.tags["role"] for run in runs} == {"student"}


def test_what_people_wrote_and_their_views_stay(mlflow_home):
    retrain()
    client = mlflow.MlflowClient()
    client.set_experiment_tag("1", "mlflow.note.content", "Ask Ada about the cameras.")
    client.set_experiment_tag("1", f"{TAG}adas-view", '{"name": "Ada"}')
    keep.keep("demo", CHAMPION)
    client.set_experiment_tag(
        "1", "mlflow.note.content", tags()["mlflow.note.content"] + "\nAnd Grace about the labels."
    )
    keep.keep("demo", "In production: version 2.")
    note = tags()["mlflow.note.content"]
    assert note.count("Boards: ") == note.count("Ask Ada about the cameras.") == note.count("And Grace") == 1
    assert "version 2" in note
    assert CHAMPION not in note
    assert views()["adas-view"] == {"name": "Ada"}


@pytest.mark.parametrize("edited", ["no JSON", "[]"])
def test_what_was_edited_to_nonsense_is_written_anew(mlflow_home, edited):
    retrain()
    keep.keep("demo", CHAMPION)
    for key in (keep.VERSIONS_TAG, TAG + declared.HEALTH.slug):
        mlflow.MlflowClient().set_experiment_tag("1", key, edited)
    assert keep.keep("demo", CHAMPION) == []
    assert views()[declared.HEALTH.slug]["name"] == "Retraining health v1"


def test_a_changed_board_is_a_new_version_of_the_same_view(mlflow_home, monkeypatch):
    retrain()
    keep.keep("demo", CHAMPION)
    section = Section(name="Another view of it", charts=(Line(metrics=("test/student_accuracy",)),))
    changed = declared.HEALTH.model_copy(update={"sections": (section,)})
    monkeypatch.setitem(declared.BOARDS, changed.slug, changed)
    keep.keep("demo", CHAMPION)
    assert len(views()) == 5
    assert views()[changed.slug]["name"] == "Retraining health v2"
    assert views()[declared.CHOOSE.slug]["name"] == "Choose a student v1"


def test_a_board_that_is_too_large_stays_as_it_was(mlflow_home):
    retrain()
    keep.keep("demo", CHAMPION)
    before = views()
    retrain(**{f"a-rather-long-name-of-a-metric-that-nobody-shows-{n}": 1.0 for n in range(200)})
    problems = keep.keep("demo", CHAMPION)
    assert len(problems) == 5
    assert "the board Retraining health takes" in problems[0]
    assert views() == before


def test_a_metric_that_no_run_has_is_named(mlflow_home):
    journal = Journal("demo", "retrain", {"run_kind": "pipeline"})
    journal.metrics({"test/student_accuracy": 0.8}, step=None)
    journal.end("FINISHED")
    tracking.deliver()
    problems = keep.keep("demo", CHAMPION)
    assert any("No run has " in p and "gain/accuracy" in p and "Retraining health" in p for p in problems)
    assert not any("data/class_shift" in p for p in problems)
    assert len(views()) == 5


@pytest.fixture(scope="module")
def server(tmp_path_factory, mlflow_template) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("boards")
    (folder / "server.db").write_bytes(mlflow_template.read_bytes())
    with mlflow_server(folder, f"sqlite:///{folder}/server.db") as running:
        yield running.uri


@pytest.fixture
def before(server, tmp_path, monkeypatch) -> Iterator[dict[str, tuple[int, str]]]:
    """MLflow's address leads through a proxy that answers some paths itself; returns them, to be filled."""
    replies: dict[str, tuple[int, str]] = {}

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, text = next((answer for path, answer in replies.items() if path in self.path), (0, ""))
            if not code:
                kind = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                reply = requests.request(self.command, server + self.path, data=body, headers=kind, timeout=120)
                code, text = reply.status_code, reply.text
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_PATCH = do_GET

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_port}")
    yield replies
    proxy.shutdown()


@pytest.mark.slow
def test_an_older_server_and_one_that_refuses_cost_a_sentence_each(before):
    retrain()
    before["/version"] = (200, "3.14.0")
    (problem,) = keep.keep("demo", CHAMPION)
    assert problem.startswith("MLflow 3.14.0 at http://127.0.0.1")
    assert "came with 3.15" in problem
    assert views() == {}
    assert tags()["mlflow.note.content"].startswith(CHAMPION)
    del before["/version"]
    before["set-experiment-tag"] = (403, json.dumps({"error_code": "PERMISSION_DENIED", "message": "read only"}))
    (problem,) = keep.keep("demo", CHAMPION)
    assert "MLflow took no boards" in problem
    assert "does not let this login do this" in problem
    del before["set-experiment-tag"]
    assert keep.keep("demo", CHAMPION) == []
    assert len(views()) == 5
