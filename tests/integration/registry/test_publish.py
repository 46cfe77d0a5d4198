"""Versions that are pushed to a real OCI registry, and pulled from it by a client that knows nothing of Reflux.

And to a server that speaks the Hugging Face hub's API, as the hub can't be reached by a test.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.registry.publish import publish
from reflux.flows.local.prefect_server import free_port
from tests.workspaces import until


@pytest.fixture
def oci(tmp_path) -> Iterator[str]:
    """Debian's docker-registry, the reference implementation, on loopback; yields its address."""
    pytest.importorskip("oras")
    binary = shutil.which("docker-registry")
    if binary is None:
        pytest.skip("there is no docker-registry: apt install docker-registry")
    port = free_port()
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "blobs")}}
    settings = {"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
    (tmp_path / "registry.yml").write_text(json.dumps(settings))
    with (tmp_path / "registry.log").open("w") as log:
        process = subprocess.Popen([binary, "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        until(lambda: _answers(port), 60)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.mark.long
def test_what_is_pulled_is_what_was_registered(oci, home, model_name, registered, tmp_path):
    from oras.client import OrasClient

    version = registered(right=180)
    published = publish(model_name, version, f"{oci}/team/clothes")
    assert published.reference == f"{oci}/team/clothes:1"
    assert publish(model_name, version, f"{oci}/team/clothes:best").digest == published.digest

    own = Path(mlflow.artifacts.download_artifacts(f"models:/{model_name}/1", dst_path=str(tmp_path / "own")))
    OrasClient(insecure=True).pull(f"{oci}/team/clothes:best", outdir=str(tmp_path / "pulled"))
    names = {path.relative_to(own) for path in own.rglob("*") if path.is_file()} - {Path("registered_model_meta")}
    assert {Path(name) for name in ("model.onnx", "preprocess.py", "evaluation/model-card.md")} <= names
    assert {
        path.relative_to(tmp_path / "pulled") for path in (tmp_path / "pulled").rglob("*") if path.is_file()
    } == names
    for name in names:
        assert sha256_file(tmp_path / "pulled" / name) == sha256_file(own / name), name
    assert mlflow.pyfunc.load_model(str(tmp_path / "pulled")).metadata.metadata["reflux"]["classes"]

    manifest = OrasClient(insecure=True).get_manifest(f"{oci}/team/clothes@{published.digest}")
    shown = {key.removeprefix("org.opencontainers.image."): value for key, value in manifest["annotations"].items()}
    assert (shown["title"], shown["version"], shown["revision"]) == (model_name, "1", "c" * 40)
    assert shown["licenses"] == "mit"


@pytest.mark.long
def test_the_hub_gets_every_file_of_a_version(hub, home, model_name, registered, tmp_path):
    published = publish(model_name, registered(right=180), "hf://team/clothes")
    assert published.get == "hf download team/clothes"
    own = Path(mlflow.artifacts.download_artifacts(f"models:/{model_name}/1", dst_path=str(tmp_path / "own")))
    files = {path.relative_to(own).as_posix(): path.read_bytes() for path in own.rglob("*") if path.is_file()}
    del files["registered_model_meta"]
    assert {"model.onnx", "preprocess.py", "evaluation/model-card.md", "evaluation/croissant.json"} <= files.keys()
    files["README.md"] = files["evaluation/model-card.md"]
    arrived = hub.repositories["team/clothes"].files
    del arrived[".gitattributes"]
    assert arrived == files
    assert arrived["README.md"].startswith(b"---\nlicense: mit\n")


@pytest.mark.parametrize(
    "target", ["flowers", "https://registry.example.com/flowers", "registry.example.com/Flowers", ""]
)
def test_what_is_no_place_in_a_registry_is_refused(model_name, target):
    with pytest.raises(UserError, match="is no place in an OCI registry: give one such as registry"):
        publish(model_name, 1, target)


@pytest.mark.parametrize("target", ["hf://flowers", "hf://team/flowers/3", "hf://"])
def test_what_is_no_repository_on_the_hub_is_refused(model_name, target):
    with pytest.raises(UserError, match=r"is no repository on the hub: give one such as hf://user/flowers\.$"):
        publish(model_name, 1, target)


def test_public_is_for_the_hub(model_name):
    with pytest.raises(UserError, match=r"^--public is for the hub: who may read localhost/flowers is up to its"):
        publish(model_name, 1, "localhost/flowers", public=True)


def test_a_registry_that_does_not_answer_is_one_sentence(model_name):
    with pytest.raises(UserError, match=r"^No OCI registry answers at http://127\.0\.0\.1:9 \(Connection"):
        publish(model_name, 1, "127.0.0.1:9/clothes")
