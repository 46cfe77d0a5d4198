import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from reflux.components.core.artifacts import read_json, sha256_file, write_json
from reflux.components.core.errors import UserError
from reflux.components.registry.lineage import trace
from reflux.components.registry.register import _first_of_twins, register


def _interrupted(*_args, **_kwargs):
    raise KeyboardInterrupt


def versions(model_name):
    return MlflowClient().search_model_versions(f"name = '{model_name}'")


def test_a_version_carries_its_lineage_figures_and_alias(home, model_name):
    artifacts = home.evaluation(right=180)

    made = register(artifacts, model_name, home.experiment, home.lineage())

    version = MlflowClient().get_model_version_by_alias(model_name, "challenger")
    assert (int(version.version), made.version, made.created) == (1, 1, True)
    assert (
        version.tags.items()
        >= {
            "artifact_sha256": sha256_file(artifacts / "compress" / "student.onnx"),
            "test_fingerprint": "f" * 64,
            "gate.status": "UNKNOWN",
            "dvc.data_md5": "b" * 32 + ".dir",
            "git.sha": "c" * 40,
            "params.sha256": "a" * 64,
            "prefect.flow_run_id": "flow-1",
            "run_id": home.run_id,
            "accuracy": "0.9",
        }.items()
    )
    assert version.run_id == home.run_id
    assert "90.00 % accuracy on 200 test images" in version.description
    assert "Not decided yet" in version.description


def test_a_control_that_ships_is_named_as_what_it_is(home, model_name):
    artifacts = home.evaluation(right=180)
    path = artifacts / "evaluate" / "metrics.json"
    lost = {"accuracy": 0.88, "gain": {"accuracy": -0.02, "ci95": [-0.04, 0.0]}}
    instead = {"candidate": {"trained": "labels", "why": "of 50 images …"}, "distilled": lost}
    write_json(path, read_json(path) | instead)

    register(artifacts, model_name, home.experiment, home.lineage())

    (version,) = versions(model_name)
    assert version.tags["trained"] == "labels"
    assert "soft_labels.key" not in version.tags
    assert "trained on the labels alone of" in version.description
    assert "same student distilled from it 88.00 %" in version.description
    (labels,) = [node for node in trace(model_name, 1).children if node.name == "soft labels"]
    assert (labels.note, labels.problem) == ("none: it was trained on the labels alone", None)


def test_logged_models_carry_signature_figures_and_the_link_between_student_and_teacher(home, model_name):
    made = register(home.evaluation(right=182), model_name, home.experiment, home.lineage())

    client = MlflowClient()
    student = client.get_logged_model(made.model_id)
    teacher = client.get_logged_model(student.params["teacher_model_id"])
    assert (student.name, teacher.name) == ("student", "teacher")
    assert (student.status, teacher.status) == ("READY", "READY")
    assert student.source_run_id == home.run_id
    figures = {metric.key: metric for metric in student.metrics}
    assert figures["test/accuracy"].value == pytest.approx(0.91)
    assert figures["test/accuracy"].dataset_name == "clothes/test"
    assert {metric.key: metric.value for metric in teacher.metrics}["test/accuracy"] == pytest.approx(0.95)
    run = client.get_run(home.run_id)
    assert student.model_id in {output.model_id for output in run.outputs.model_outputs}
    assert {used.model_id for used in run.inputs.model_inputs} == {teacher.model_id}


def test_a_teacher_belongs_to_the_run_that_trained_it_and_is_logged_once(home, model_name, write_network):
    client = MlflowClient()
    training = client.create_run(client.get_run(home.run_id).info.experiment_id, run_name="finetune").info.run_id
    artifacts = home.evaluation(right=185)
    write_network(artifacts / "finetune" / "model.safetensors", "resnet8", 16, seed=1)
    write_json(artifacts / "finetune" / "run.json", {"mlflow_run_id": training})
    try:
        made = [register(artifacts, model_name, home.experiment, home.lineage())]
        made.append(register(home.evaluation(right=186), model_name, home.experiment, home.lineage()))
    finally:
        for name in ("model.safetensors", "run.json"):
            (artifacts / "finetune" / name).unlink()

    teachers = {client.get_logged_model(one.model_id).params["teacher_model_id"] for one in made}

    assert len(teachers) == 1
    assert client.get_logged_model(teachers.pop()).source_run_id == training
    assert client.get_run(training).data.metrics["test/accuracy"] == pytest.approx(0.95)
    assert client.get_run(home.run_id).data.metrics["test/accuracy"] == pytest.approx(0.93)


def test_the_registered_file_is_the_evaluated_one_and_answers_raw_pixels(home, model_name, tmp_path):
    artifacts = home.evaluation(right=183)
    made = register(artifacts, model_name, home.experiment, home.lineage())

    folder = mlflow.artifacts.download_artifacts(f"models:/{model_name}/{made.version}", dst_path=str(tmp_path))
    served = mlflow.pyfunc.load_model(folder)

    assert sha256_file(tmp_path / "model.onnx") == sha256_file(artifacts / "compress" / "student.onnx")
    assert served.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, 1, 16, 16)}
    assert served.metadata.metadata["reflux"]["classes"] == ["boot", "dress", "shirt"]
    images = np.load(artifacts / "ingest" / "shards" / "test" / "images.npy").transpose(0, 3, 1, 2)
    labels = np.load(artifacts / "ingest" / "shards" / "test" / "labels.npy")
    for batch in (1, 5, 200):
        logits = served.predict(np.ascontiguousarray(images[-batch:]))["logits"]
        assert logits.shape == (batch, 3)
    assert (logits.argmax(axis=1) == labels).sum() == 183
    assert (tmp_path / "evaluation" / "model-card.html").read_text() == "<h1>The card</h1>"
    with np.load(tmp_path / "evaluation" / "probe.npz", allow_pickle=False) as probe:
        assert (served.predict(probe["pixels"])["logits"].argmax(axis=1) == probe["predicted"]).all()
    assert not list(tmp_path.rglob("*.pkl"))
    assert all("==" in line for line in (tmp_path / "requirements.txt").read_text().split())


def test_the_teacher_answers_from_the_registry_as_it_does_here(home, model_name):
    from reflux.components.modalities.image.models import pixel_model
    from reflux.components.modalities.image.views.augment import to_pixels

    artifacts = home.evaluation(right=184)
    made = register(artifacts, model_name, home.experiment, home.lineage())
    teacher_id = MlflowClient().get_logged_model(made.model_id).params["teacher_model_id"]

    served = mlflow.pyfunc.load_model(f"models:/{teacher_id}")

    import torch

    images = np.load(artifacts / "ingest" / "shards" / "test" / "images.npy")[:5]
    pixels = to_pixels(images, torch.device("cpu"))
    with torch.inference_mode():
        expected = pixel_model.load(artifacts / "finetune" / "model.safetensors")(pixels).numpy()
    for batch in (1, 5):
        answer = served.predict(np.ascontiguousarray(pixels.numpy()[:batch]))
        assert np.allclose(answer, expected[:batch], atol=1e-4)


def test_the_same_evaluation_is_one_version_whatever_run_asks(home, model_name):
    artifacts = home.evaluation(right=181)
    first = register(artifacts, model_name, home.experiment, home.lineage())
    logged = len(MlflowClient().search_logged_models([MlflowClient().get_run(home.run_id).info.experiment_id]))

    again = register(artifacts, model_name, home.experiment, home.lineage(flow_run_id="flow-2"))

    assert (again.version, again.model_id, again.created) == (first.version, first.model_id, False)
    assert len(versions(model_name)) == 1
    assert len(MlflowClient().search_logged_models([MlflowClient().get_run(home.run_id).info.experiment_id])) == logged
    assert versions(model_name)[0].tags["prefect.flow_run_id"] == "flow-1"


def test_another_evaluation_is_another_version_and_the_challenger(home, model_name):
    register(home.evaluation(right=170), model_name, home.experiment, home.lineage())
    second = register(home.evaluation(right=171), model_name, home.experiment, home.lineage())
    assert second.version == 2
    assert int(MlflowClient().get_model_version_by_alias(model_name, "challenger").version) == 2


def test_a_copy_without_git_registers_and_says_what_is_missing(home, model_name):
    lineage = home.lineage(git_sha=None, data_md5=None, flow_run_id=None)
    register(home.evaluation(right=172), model_name, home.experiment, lineage)
    (version,) = versions(model_name)
    assert "git.sha" not in version.tags
    assert "| Git commit | unknown" in version.description


@pytest.mark.parametrize(
    "step", ["log_model_artifacts", "finalize_logged_model", "create_model_version", "set_registered_model_alias"]
)
def test_an_attempt_that_broke_off_is_finished_by_the_next_one(home, model_name, monkeypatch, step):
    artifacts = home.evaluation(right=180)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, _interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(artifacts, model_name, home.experiment, home.lineage())
    made = register(artifacts, model_name, home.experiment, home.lineage())

    (version,) = versions(model_name)
    assert int(MlflowClient().get_model_version_by_alias(model_name, "challenger").version) == made.version
    assert MlflowClient().get_logged_model(made.model_id).status == "READY"
    assert version.tags["lineage.key"]


@pytest.mark.slow
def test_a_killed_attempt_leaves_no_version_and_the_next_one_makes_one(home, model_name):
    artifacts = home.evaluation(right=165)
    script = dedent(f"""
        import os, signal
        from pathlib import Path
        from mlflow import MlflowClient
        from reflux.components.registry.versions.evaluated_run import Lineage
        from reflux.components.registry.register import register

        finalize = MlflowClient.finalize_logged_model

        def killed(client, model_id, status):
            if client.get_logged_model(model_id).name == "student":
                os.kill(os.getpid(), signal.SIGKILL)
            return finalize(client, model_id, status)

        MlflowClient.finalize_logged_model = killed
        lineage = Lineage({home.run_id!r}, None, None, None, None)
        register(Path({str(artifacts)!r}), {model_name!r}, {home.experiment!r}, lineage)
    """)
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert versions(model_name) == []

    made = register(artifacts, model_name, home.experiment, home.lineage())

    (version,) = versions(model_name)
    statuses = {
        model.model_id: str(model.status)
        for model in MlflowClient().search_logged_models([MlflowClient().get_run(home.run_id).info.experiment_id])
        if model.tags.get("lineage.key") == version.tags["lineage.key"]
    }
    assert sorted(statuses.values()) == ["FAILED", "READY"]
    assert statuses[made.model_id] == "READY"


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_what_killed_registrations_left_incomplete_is_closed_by_the_next_of_any_evaluation(home, model_name, name):
    """Also the model of a request that was sent twice, as its answer was lost."""
    mlflow_client = MlflowClient()
    experiment = mlflow_client.get_run(home.run_id).info.experiment_id
    left = mlflow_client.create_logged_model(experiment, name, home.run_id, {"lineage.key": "of another evaluation"})
    register(home.evaluation(right=162), model_name, home.experiment, home.lineage())
    assert mlflow_client.get_logged_model(left.model_id).status == "FAILED"


def test_callers_at_the_same_moment_make_one_version(home, model_name):
    artifacts = home.evaluation(right=164)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: register(artifacts, model_name, home.experiment, home.lineage()), range(4)))
    assert [one.version for one in made] == [1] * 4
    assert [one.created for one in made].count(True) == 1
    assert len(versions(model_name)) == 1


def test_of_twins_from_two_hosts_the_older_one_stays(home, model_name):
    made = register(home.evaluation(right=163), model_name, home.experiment, home.lineage())
    (older,) = versions(model_name)
    twin = MlflowClient().create_model_version(model_name, older.source, home.run_id, tags=older.tags)

    kept = _first_of_twins(MlflowClient(), model_name, older.tags["lineage.key"], int(twin.version), "m-twin")

    assert kept == (made.version, made.model_id)
    assert [int(version.version) for version in versions(model_name)] == [1]


def test_an_evaluation_of_another_file_is_refused(home, model_name):
    artifacts = home.evaluation(right=160)
    (artifacts / "compress" / "student.onnx").write_bytes(b"retrained meanwhile")
    with pytest.raises(UserError, match="evaluation of another file"):
        register(artifacts, model_name, home.experiment, home.lineage())
    assert versions(model_name) == []


def test_an_evaluation_on_another_test_split_is_refused(home, model_name):
    artifacts = home.evaluation(right=160)
    dataset = artifacts / "ingest" / "dataset.json"
    dataset.write_text(json.dumps(read_json(dataset) | {"fingerprints": {"test": "0" * 64}}))
    with pytest.raises(UserError, match="another test split"):
        register(artifacts, model_name, home.experiment, home.lineage())


def test_a_missing_card_is_named(home, model_name):
    artifacts = home.evaluation(right=160)
    (artifacts / "evaluate" / "model-card.html").unlink()
    with pytest.raises(UserError, match=r"model-card\.html is missing"):
        register(artifacts, model_name, home.experiment, home.lineage())


def test_a_finished_upload_whose_file_was_damaged_since_is_made_anew(home, model_name, monkeypatch):
    artifacts = home.evaluation(right=180)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(artifacts, model_name, home.experiment, home.lineage())
    for path in (home.folder / "mlartifacts").rglob("model.onnx"):
        if model_name in (path.parent / "evaluation" / "metrics.json").read_text():
            path.write_bytes(b"damaged")

    made = register(artifacts, model_name, home.experiment, home.lineage())

    folder = mlflow.artifacts.download_artifacts(f"models:/{made.model_id}")
    assert sha256_file(Path(folder) / "model.onnx") == sha256_file(artifacts / "compress" / "student.onnx")
