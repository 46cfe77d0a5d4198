"""Lineage: a version registered from a real checkout, whose links are then broken one after the other."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import sha256_file, write_json
from reflux.components.core.errors import UserError
from reflux.components.core.runtime import lineage
from reflux.components.registry.lineage import made_from, trace
from reflux.components.registry.register import register
from reflux.components.registry.text import urls
from reflux.components.registry.versions.evaluated_run import Lineage
from reflux.flows.commands import lineage as command
from tests.integration.registry.faults import registered_file, retag
from tests.workspaces import git

MD5 = "0123456789abcdef0123456789abcdef.dir"
KEY = "5" * 64


def show(model_name: str, of: str, as_json: bool) -> int:
    """``reflux lineage`` of a project with this registered model."""
    params = SimpleNamespace(registry=SimpleNamespace(model_name=model_name))
    with mock.patch.object(command, "registry_params", lambda: params):
        return command.lineage(of, as_json)


def lock(md5: str) -> None:
    text = f"schema: '2.0'\nstages:\n  ingest:\n    cmd: x\n    deps:\n    - {{path: data/clothes, md5: {md5}}}\n"
    Path("dvc.lock").write_text(text)


@dataclass(frozen=True)
class Registered:
    """A version with a whole chain, and the checkout it came from."""

    checkout: Path
    model: str
    number: int
    run_id: str
    sha: str

    def problems(self) -> list[str]:
        return list(trace(self.model, self.number).problems())

    def file(self, name: str) -> Path:
        return registered_file(self.model, self.number, name)

    def tag(self, key: str) -> str:
        return MlflowClient().get_model_version(self.model, str(self.number)).tags[key]


@pytest.fixture(scope="module")
def registered(home, tmp_path_factory) -> Iterator[Registered]:
    checkout = tmp_path_factory.mktemp("checkout")
    own = replace(home, folder=checkout, salt="lineage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout)
        patch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
        Path("params.yaml").write_text("seed: 0\n")
        Path(".gitignore").write_text("artifacts\n.reflux\nmlartifacts\n")
        lock(MD5)
        git(Path(), "init", "-q")
        git(Path(), "add", ".")
        git(Path(), "commit", "-qm", "one")
        sha, params = lineage.code().sha, lineage.params_sha256()
        client = MlflowClient()
        tags = {"git.sha": sha, "git.dirty": "false", "params.sha256": params, "dvc.data_md5": MD5}
        experiment = client.get_experiment_by_name("clothes").experiment_id
        run_id = client.create_run(experiment, tags=tags, run_name="retrain-1").info.run_id
        client.log_artifact(run_id, "params.yaml")
        artifacts = own.evaluation(right=180)
        pretrained = {"model": "resnet8", "weights": "pypi", "file": "resnet8.pt", "sha256": "9" * 64}
        write_json(artifacts / "pretrain" / "model.json", pretrained)
        write_json(artifacts / "label" / "manifest.json", {"key": KEY, "views": 2})
        write_json(artifacts / "evaluate" / "run.json", {"mlflow_run_id": run_id})
        made = register(artifacts, "lineage", "clothes", Lineage(run_id, params, MD5, sha, "flow-1"))
        yield Registered(checkout, "lineage", made.version, run_id, sha)


def test_every_link_of_a_whole_chain_is_found(registered):
    root = trace(registered.model, registered.number)
    nodes = {node.name: node for child in root.children for node in (child, *child.children)}
    assert list(root.problems()) == []
    assert {name: node.value for name, node in nodes.items()} == {
        "model": registered.tag("model_id"),
        "file": registered.tag("artifact_sha256"),
        "evaluation": "f" * 64,
        "card": "model-card.html",
        "sbom": "sbom.cdx.json" if find_spec("cyclonedx") else "none",
        "signature": "unsigned",
        "run": registered.run_id,
        "params": sha256_file(Path("params.yaml")),
        "flow run": "flow-1",
        "data": MD5,
        "code": registered.sha,
        "teacher": registered.tag("teacher.model_id"),
        "pretrained": "9" * 64,
        "soft labels": KEY,
        "decision": None,
    }
    assert nodes["evaluation"].note == "test split of 200 images, accuracy 90.00 %"
    assert nodes["data"].note == "known to dvc.lock"
    assert nodes["soft labels"].note == "in artifacts/label"
    assert nodes["pretrained"].note == "resnet8, pypi"


def test_the_description_leads_to_the_run_the_teacher_and_the_card(registered):
    version = MlflowClient().get_model_version(registered.model, str(registered.number))
    experiment, teacher = version.tags["experiment_id"], version.tags["teacher.model_id"]
    assert f"| Pipeline run | [`{registered.run_id}`](#/experiments/{experiment}/runs/{registered.run_id}) |" in (
        version.description
    )
    assert f"(#/experiments/{experiment}/models/{teacher})" in version.description
    assert f"(#/experiments/{experiment}/runs/{registered.run_id}/artifacts/model-card.html)" in version.description
    assert f"| Soft labels | `{KEY}` |" in version.description


def test_the_tree_is_printed_whole_and_as_json(registered, capsys):
    assert show(registered.model, str(registered.number), as_json=False) == 0
    printed = capsys.readouterr().out
    assert "version  lineage version 1  (UNKNOWN, @challenger)" in printed
    assert "│   ├── evaluation  " + "f" * 64 + "  (test split of 200 images, accuracy 90.00 %)\n" in printed
    for value in (registered.run_id, registered.sha, MD5, KEY, "9" * 64, "flow-1"):
        assert value in printed
    assert show(registered.model, str(registered.number), as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["whole"], document["problems"]) == (True, [])
    assert document["tree"]["children"][1]["value"] == registered.run_id


def test_each_link_has_its_page_where_mlflow_and_prefect_are_servers(registered, monkeypatch):
    for name in ("PREFECT_UI_URL", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    assert urls.flow_run("flow-1") is None
    assert urls.address(urls.run("1", "abc")) is None
    monkeypatch.setenv("PREFECT_API_URL", "http://ada:secret@prefect.example:4200/api")
    assert urls.flow_run("flow-1") == "http://prefect.example:4200/runs/flow-run/flow-1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:secret@mlflow.example/")
    assert urls.address(urls.run("1", "abc")) == "https://mlflow.example/#/experiments/1/runs/abc"
    assert urls.address(urls.version("a b", 3)) == "https://mlflow.example/#/models/a%20b/versions/3"
    assert urls.card({"experiment_id": "1", "model_id": "m-1"}) == "#/experiments/1/models/m-1/artifacts"
    assert urls.card({}) is None


def test_the_decision_leads_to_its_run_in_the_ledger(registered, home):
    (decision,) = [node for node in trace(registered.model, registered.number).children if node.name == "decision"]
    assert (decision.value, decision.note, decision.problem) == (None, "not decided yet", None)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("clothes").experiment_id
    run = client.create_run(experiment, tags={"promotion.by": "ada@lab"}, run_name="v1 rejected").info.run_id
    client.set_model_version_tag(registered.model, str(registered.number), "gate.run_id", run)
    try:
        decision = trace(registered.model, registered.number).children[-1]
        assert (decision.value, decision.note) == (run, "v1 rejected, by ada@lab")
        client.delete_run(run)
        assert registered.problems() == ["decision: its run was deleted in MLflow."]
    finally:
        client.delete_model_version_tag(registered.model, str(registered.number), "gate.run_id")


@pytest.mark.parametrize("of", ["commit", "data", "weights"])
def test_from_a_hash_back_to_the_versions(registered, capsys, of):
    prefix, label = {
        "commit": (registered.sha[:9], "Git commit"),
        "data": (MD5[:8], "Data (DVC md5)"),
        "weights": ("9999999", "Pretrained weights (sha256)"),
    }[of]
    assert show(registered.model, prefix, as_json=False) == 0
    assert capsys.readouterr().out == f"lineage version 1  ({label})\n"
    assert show(registered.model, prefix, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [{"version": 1, "by": label}]


def test_what_nothing_was_made_from_is_said(registered):
    with pytest.raises(UserError, match="No version of lineage was made from abcdef12"):
        made_from(registered.model, "abcdef12")
    with pytest.raises(UserError, match="neither a version's number nor the start of a hash"):
        show(registered.model, "%", as_json=False)
    with pytest.raises(UserError, match="has no version 99"):
        show(registered.model, "99", as_json=False)


def test_a_checkout_that_knows_neither_data_nor_commit_says_so_and_prints_the_rest(
    registered, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert show(registered.model, str(registered.number), as_json=False) == 1
    printed = capsys.readouterr().out
    assert "Broken: data: neither dvc.lock nor DVC's cache nor a commit of this checkout knows it" in printed
    assert "Broken: code: this checkout does not have the commit" in printed
    assert printed.count("Broken:") == 2
    assert registered.run_id in printed


def test_older_data_is_known_from_the_history_and_from_the_cache(registered):
    lock("f" * 32 + ".dir")
    try:
        assert lineage.where_data_is_known(MD5).startswith("commit ")
        assert lineage.where_data_is_known("e" * 32) is None
        cached = Path(".dvc/cache/files/md5/ee") / ("e" * 30)
        cached.parent.mkdir(parents=True)
        cached.touch()
        assert lineage.where_data_is_known("e" * 32) == "DVC's cache"
        elsewhere = Path("elsewhere/files/md5/dd") / ("d" * 30)
        elsewhere.parent.mkdir(parents=True)
        elsewhere.touch()
        Path(".dvc/config").write_text("[cache]\n    dir = ../elsewhere\n")
        assert lineage.where_data_is_known("d" * 32) == "DVC's cache"
    finally:
        lock(MD5)


@contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with other content, or none, for as long as this lasts."""
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_changed_file_is_named(registered):
    after = {
        "model.onnx": "file: The tag artifact_sha256 of",
        "evaluation/metrics.json": "evaluation: metrics.json was changed since",
        "evaluation/model-card.html": "card: model-card.html is not kept",
    }
    for name, sentence in after.items():
        with changed(registered.file(name), None if name.endswith("html") else b"{}"):
            (problem,) = registered.problems()
            assert "was changed, added or removed" in problem
            retag(registered.model, registered.number)
            (problem,) = registered.problems()
            assert problem.startswith(sentence)
        retag(registered.model, registered.number)
    assert registered.problems() == []


def test_changed_params_of_the_run_are_named(registered):
    uri = MlflowClient().get_run(registered.run_id).info.artifact_uri
    path = Path(uri.removeprefix("file://")) / "params.yaml"
    with changed(path, b"seed: 1\n"):
        assert registered.problems() == ["params: the params.yaml that its run keeps was changed."]
    with changed(path, None):
        assert registered.problems() == ["params: its run does not keep params.yaml."]


def test_a_deleted_run_and_edited_tags_are_named(registered):
    client = MlflowClient()
    client.delete_run(registered.run_id)
    try:
        assert registered.problems() == ["run: it was deleted in MLflow."]
    finally:
        client.restore_run(registered.run_id)
    client.set_model_version_tag(registered.model, str(registered.number), "params.sha256", "0" * 64)
    try:
        assert "run: it says another params.sha256 than the version." in registered.problems()
    finally:
        value = sha256_file(registered.checkout / "params.yaml")
        client.set_model_version_tag(registered.model, str(registered.number), "params.sha256", value)


def test_edited_figures_are_named(registered):
    client, version = MlflowClient(), str(registered.number)
    before = registered.tag("accuracy")
    client.set_model_version_tag(registered.model, version, "accuracy", "0.99")
    try:
        (problem,) = registered.problems()
        assert problem.startswith("evaluation: Figures of lineage version 1 were edited in MLflow: the tag accuracy is")
    finally:
        client.set_model_version_tag(registered.model, version, "accuracy", before)


def test_a_swapped_source_is_named(registered, home):
    """MLflow has no call that changes a source; who can write to its database can."""
    other = MlflowClient().get_logged_model(registered.tag("teacher.model_id")).model_id
    source = MlflowClient().get_model_version(registered.model, str(registered.number)).source
    swap = "UPDATE model_versions SET source = :source WHERE name = :name"
    home.sql(swap, source=f"models:/{other}", name=registered.model)
    try:
        problems = registered.problems()
        assert any("the version's source was changed" in problem for problem in problems)
    finally:
        home.sql(swap, source=source, name=registered.model)


def test_models_that_were_deleted_are_named_and_the_rest_is_printed(home, model_name, capsys):
    made = register(home.evaluation(right=172), model_name, home.experiment, home.lineage())
    client = MlflowClient()
    client.delete_logged_model(made.model_id)
    assert show(model_name, str(made.version), as_json=False) == 1
    printed = capsys.readouterr().out
    assert f"Broken: model: MLflow has no LoggedModel {made.model_id}." in printed
    assert f"the LoggedModel {made.model_id}, which has them, was deleted" in printed
    assert home.run_id in printed


def test_what_an_old_registration_did_not_record_is_a_break(home, model_name):
    made = register(home.evaluation(right=171), model_name, home.experiment, home.lineage(flow_run_id=None))
    problems = list(trace(model_name, made.version).problems())
    assert "pretrained: it was not recorded when the version was registered." in problems
    assert "soft labels: it was not recorded when the version was registered." in problems
    assert "flow run: it was not recorded when the version was registered." in problems
    assert not any(problem.startswith(("model", "teacher", "run:")) for problem in problems)
