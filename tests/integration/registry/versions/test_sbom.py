"""The bill of materials that each version carries."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pytest

from reflux.components.core.artifacts import read_json, sha256_file, write_json
from reflux.components.registry.lineage import trace
from reflux.components.registry.register import register
from reflux.components.registry.versions.sbom import SBOM, required

pytest.importorskip("cyclonedx")


@pytest.fixture
def artifacts(home, model_name, with_bill) -> Iterator[Path]:
    """An evaluation of which the origin of the teacher, and the environment of the training, are known."""
    artifacts = home.evaluation(right=180)
    pretrained = {"model": "resnet8", "weights": "pypi", "file": "resnet8.pt", "sha256": "9" * 64}
    write_json(artifacts / "pretrain" / "model.json", pretrained)
    environment = {"torch": "2.99.0+cu130", "device": "cuda"}
    write_json(artifacts / "distill" / "run.json", {"environment": environment})
    yield artifacts
    for path in (artifacts / "pretrain" / "model.json", artifacts / "distill" / "run.json"):
        path.unlink()


def bill(model_name: str, number: int, folder: Path) -> dict[str, Any]:
    mlflow.artifacts.download_artifacts(f"models:/{model_name}/{number}", dst_path=str(folder))
    return read_json(folder / SBOM)


def test_a_version_carries_a_valid_bill_of_what_made_it_and_what_serves_it(home, model_name, artifacts, tmp_path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    made = register(artifacts, model_name, home.experiment, home.lineage())

    document = bill(model_name, made.version, tmp_path)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((tmp_path / SBOM).read_text()) is None
    student = document["metadata"]["component"]
    assert (student["type"], student["name"]) == ("machine-learning-model", "resnet8")
    assert student["hashes"][0]["content"] == sha256_file(artifacts / "compress" / "student.onnx")
    components = {each["name"]: each for each in document["components"]}
    assert components["onnxruntime"]["version"] == version("onnxruntime")
    assert components["onnxruntime"]["purl"] == f"pkg:pypi/onnxruntime@{version('onnxruntime')}"
    assert components["onnxruntime"]["licenses"]
    assert components["reflux"]["purl"] == f"pkg:generic/reflux@{version('reflux')}", "PyPI's is another project's"
    assert {name: components[name]["scope"] for name in ("onnxruntime", "numpy", "mlflow", "torch", "timm", "dvc")} == {
        **dict.fromkeys(("onnxruntime", "numpy", "mlflow"), "required"),
        **dict.fromkeys(("torch", "timm", "dvc"), "excluded"),
    }
    assert components["torch"]["version"] == "2.99.0+cu130"  # as the stage recorded it, wherever it ran
    assert "pytest" not in components
    assert components["resnet8"]["hashes"] == [{"alg": "SHA-256", "content": "9" * 64}]
    facts = {each["name"]: each["value"] for each in components["clothes"]["properties"]}
    assert facts == {"reflux:dvc.data_md5": "b" * 32 + ".dir", "reflux:fingerprint:test": "f" * 64}
    edges = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert {"dataset", "pretrained", components["onnxruntime"]["purl"]} <= set(edges["model"])
    assert components["numpy"]["purl"] in edges[components["onnxruntime"]["purl"]]
    node = next(node for node in trace(model_name, made.version).children[0].children if node.name == "sbom")
    libraries = sum(each["type"] == "library" for each in document["components"])
    assert (node.value, node.note) == (SBOM, f"{libraries} packages")


def test_without_the_package_a_version_has_no_bill_and_its_chain_is_whole(home, model_name):
    made = register(home.evaluation(right=179), model_name, home.experiment, home.lineage())
    node = next(node for node in trace(model_name, made.version).children[0].children if node.name == "sbom")
    assert (node.value, node.problem) == ("none", None)


def test_requirements_are_followed_with_their_extras_and_markers():
    plain, with_extra = required(["mlflow"]), required(["mlflow[auth]"])
    assert {"numpy", "sqlalchemy", "jinja2"} <= plain.keys()
    assert "flask-wtf" in with_extra.keys() - plain.keys()
    assert required(["no-such-package"]) == {}
