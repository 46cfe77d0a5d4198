"""A server that names files outside of the folder that they are fetched into gets nothing written there."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import tracking

ANSWERS = {
    "/api/2.0/mlflow/model-versions/get-download-uri": {"artifact_uri": "mlflow-artifacts:/0/models/m-1/artifacts"},
    "/api/2.0/mlflow/model-versions/get": {
        "model_version": {"name": "evil", "version": "1", "source": "mlflow-artifacts:/0/models/m-1/artifacts"}
    },
}


@pytest.fixture
def served(request, tmp_path, monkeypatch) -> Iterator[None]:
    """An MLflow server whose model has the file, or the files by a comma, that the test asks for."""
    names = request.param.replace("/ESCAPED", f"{tmp_path}/escaped.safetensors").split(",")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            body = json.dumps(ANSWERS.get(path, {})).encode()
            if path == "/api/2.0/mlflow-artifacts/artifacts":
                body = json.dumps(
                    {"files": [{"path": name, "is_dir": False, "file_size": 4} for name in names]}
                ).encode()
            elif path.startswith("/api/2.0/mlflow-artifacts/artifacts/"):
                body = b"evil"
            self.send_response_only(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a" / "b"))
    monkeypatch.chdir(tmp_path / "a" / "b")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("served", ["model.safetensors"], indirect=True)
def test_a_file_of_a_good_name_is_fetched(served):
    assert tracking.download_weights("models:/evil/1", "pretrain.weights").read_bytes() == b"evil"


@pytest.mark.parametrize("served", ["student.safetensors,teacher.safetensors"], indirect=True)
def test_of_several_files_none_is_taken(served):
    sentence = (
        r"pretrain.weights = models:/evil/1 holds 2 .* \(student.safetensors, teacher.safetensors\): download the"
    )
    with pytest.raises(UserError, match=sentence):
        tracking.download_weights("models:/evil/1", "pretrain.weights")


BAD = ["../../escaped.safetensors", "/ESCAPED", "a/../../escaped.safetensors", "..%2f..%2fescaped.safetensors"]


@pytest.mark.parametrize("served", BAD, indirect=True)
def test_a_file_of_a_model_cannot_be_named_out_of_its_folder(served, tmp_path):
    with pytest.raises(UserError, match=r"can't be fetched from .*: Invalid path"):
        tracking.download_weights("models:/evil/1", "pretrain.weights")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
