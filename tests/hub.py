"""A real HTTP server that speaks the part of the Hugging Face hub's API by which huggingface_hub pushes a model.

Files whose name ends in ``.onnx`` go over Git LFS, as large files do on the hub, and the rest inside of the commit.
"""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML, YAMLError

Answer = tuple[int, dict[str, Any]]
TOKEN = "hf_aSecretThatNobodyMayRead"


@dataclass
class HubRepository:
    """A model repository: its files after each commit, by the commit's message."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class Hub:
    """A hub on loopback on which ``TOKEN`` may write below ``team``."""

    def __init__(self) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.large: dict[str, bytes] = {}
        self.fails: dict[str, int] = {}  # answers to paths that end like this
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/":
            return self._answer(200, {})
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if not self._allowed():
            return None
        if name not in self.hub.repositories:
            return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        repository = self.hub.repositories[name]
        siblings = [{"rfilename": file} for file in repository.files]
        return self._answer(200, {"id": name, "sha": "0" * 40, "private": repository.private, "siblings": siblings})

    def do_PUT(self):
        oid, content = self.path.rsplit("/", 1)[1], self._body()
        if hashlib.sha256(content).hexdigest() != oid:
            return self._answer(400, {"error": "another file"})
        self.hub.large[oid] = content
        return self._answer(200, {})

    def do_POST(self):
        path, body = urlsplit(self.path).path, self._body()
        if not self._allowed():
            return None
        failure = next((status for end, status in self.hub.fails.items() if path.endswith(end)), None)
        if failure:
            return self._answer(failure, {"error": "not today"})
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if path == "/api/repos/create":
            status, answer = self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            status, answer = self._validate(json.loads(body)["content"])
        elif path.endswith("/preupload/main"):
            status, answer = 200, {"files": [self._mode(each["path"]) for each in json.loads(body)["files"]]}
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [self._upload(each) for each in json.loads(body)["objects"]]
            status, answer = 200, {"transfer": "basic", "objects": objects}
        else:
            status, answer = self._commit(name, [json.loads(line) for line in body.splitlines()])
        return self._answer(status, answer)

    def _create(self, wanted: dict[str, Any]) -> Answer:
        if wanted["organization"] != "team":
            return (403, {"error": "You don't have the rights to create a model under this namespace"})
        name = f"team/{wanted['name']}"
        # Releases of the library before 1.6 say `private`.
        private = wanted["private"] if "private" in wanted else wanted["visibility"] == "private"
        self.hub.repositories[name] = HubRepository(private, {".gitattributes": b"*.onnx filter=lfs\n"})
        return (200, {"url": f"{self.hub.url}/{name}"})

    def _validate(self, card: str) -> Answer:
        try:
            YAML(typ="safe").load(card.split("---\n")[1])
        except (YAMLError, IndexError) as error:
            return (400, {"errors": [{"message": str(error)}], "warnings": []})
        return (200, {"errors": [], "warnings": []})

    def _mode(self, path: str) -> dict[str, Any]:
        return {"path": path, "uploadMode": "lfs" if path.endswith(".onnx") else "regular", "shouldIgnore": False}

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        known = wanted["oid"] in self.hub.large
        return wanted | ({} if known else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> Answer:
        repository = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.large[value["oid"]]
            else:
                del repository.files[value["path"]]
        oid = f"{len(repository.commits):040x}"
        return (200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _allowed(self) -> bool:
        if self.headers["authorization"] == f"Bearer {TOKEN}":
            return True
        self._answer(401, {"error": "Invalid credentials in Authorization header"})
        return False

    def _body(self) -> bytes:
        if self.headers["transfer-encoding"] == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers["content-length"] or 0))

    def _answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        headers = {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass
