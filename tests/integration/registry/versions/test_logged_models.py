"""The champion as others use it: served by MLflow, through pyfunc, in onnxruntime; and what the pages' lines find."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import mlflow
import numpy as np
import onnxruntime
import pytest
import requests
from mlflow.exceptions import MlflowException
from PIL import Image
from scipy.special import softmax

from reflux.components.core.errors import UserError
from reflux.components.core.runtime import tracking
from reflux.components.registry.predict import predict
from reflux.components.registry.register import register
from reflux.components.registry.versions.files import fetch_files
from reflux.flows.local.prefect_server import free_port
from tests.integration.registry.faults import flip_byte
from tests.workspaces import example


@pytest.fixture
def pixels(home, champion) -> np.ndarray:
    """Test images uint8 [N, 1, H, W]."""
    stored = np.load(home.artifacts / "ingest" / "shards" / "test" / "images.npy")
    return np.ascontiguousarray(stored.transpose(0, 3, 1, 2))


@pytest.fixture
def served(home, champion, tmp_path) -> Iterator[str]:
    """``mlflow models serve``, a process of its own; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", champion, "--env-manager", "local"]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    log = tmp_path / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                requests.get(f"{address}/ping", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
def test_mlflow_serves_the_champion_which_answers_one_and_five_images_as_reflux_predict_does(
    home, champion, pixels, served
):
    images = []
    for row in range(5):
        images.append(home.folder / f"served-{row}.png")
        Image.fromarray(pixels[row, 0]).save(images[-1])
    ours = list(predict(images, champion))

    for count in (1, 5):
        answer = requests.post(f"{served}/invocations", json={"inputs": pixels[:count].tolist()}, timeout=120)
        assert answer.status_code == 200, answer.text
        logits = np.array(answer.json()["predictions"]["logits"], np.float32)
        assert logits.shape == (count, 3)
        for row, expected in zip(logits, ours, strict=False):
            served_shares = dict(zip(("boot", "dress", "shirt"), softmax(np.float64(row)), strict=True))
            assert served_shares == pytest.approx(expected.probabilities, rel=1e-5)
            assert max(served_shares, key=served_shares.__getitem__) == expected.class_name

    for wrong in (pixels[:1, :, :8].tolist(), "an image"):
        assert requests.post(f"{served}/invocations", json={"inputs": wrong}, timeout=120).status_code == 400


def test_pyfunc_takes_raw_pixels_by_its_signature_and_names_what_it_answers(champion, pixels):
    model = mlflow.pyfunc.load_model(champion)
    signature = model.metadata.signature
    assert signature.inputs.to_dict() == [
        {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": (-1, 1, 16, 16)}}
    ]
    assert signature.outputs.to_dict() == [
        {"type": "tensor", "name": "logits", "tensor-spec": {"dtype": "float32", "shape": (-1, 3)}}
    ]
    for count in (1, 5):
        answer = model.predict(pixels[:count])
        assert list(answer) == ["logits"]
        assert (answer["logits"].shape, answer["logits"].dtype) == ((count, 3), np.float32)
    for wrong in (pixels[:1] / np.float32(255), pixels[:1, :, :8]):
        with pytest.raises(MlflowException, match=r"schema|shape|type"):
            model.predict(wrong)
    assert (model.input_example.shape, model.input_example.dtype) == ((2, 1, 16, 16), np.uint8)


def test_onnx_users_get_the_evaluated_network_with_its_names(champion, pixels):
    from mlflow import onnx

    network = onnx.load_model(champion)
    version = mlflow.MlflowClient().get_model_version_by_alias(*champion.removeprefix("models:/").split("@"))
    with fetch_files(version) as files:
        evaluated = onnxruntime.InferenceSession(files.file, providers=["CPUExecutionProvider"])
        expected = evaluated.run(None, {"pixels": pixels[:5]})[0]
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(uint8)", [1, 16, 16])
    assert (given.name, given.type, given.shape[1:]) == ("logits", "tensor(float)", [3])
    for count in (1, 5):
        assert np.array_equal(session.run(["logits"], {"pixels": pixels[:count]})[0], expected[:count])


def test_the_pages_lines_find_the_best_student_under_100_kb_and_all_versions_of_some_data(home, model_name):
    client = tracking.client()
    own = replace(home, experiment=model_name)
    own = replace(own, run_id=client.create_run(tracking.experiment_id(client, model_name)).info.run_id)
    data = {"first": "d" * 32, "second": "e" * 32}
    # The most accurate one is larger than 100 KB, and the teacher is better than the others, and small.
    for right, ballast, md5 in ((150, 0, "first"), (199, 200_000, "first"), (186, 0, "second"), (180, 0, "first")):
        lineage = own.lineage(data_md5=f"{data[md5]}.dir")
        register(own.evaluation(right, ballast=ballast), model_name, own.experiment, lineage)

    names = {"mlflow": mlflow, "experiment_id": client.get_experiment_by_name(model_name).experiment_id}
    exec(example("boards.md", "search_logged").replace("<md5>", data["first"]), names)  # noqa: S102 - our own page

    best = client.get_logged_model(names["best"].iloc[0]["model_id"])
    figures = {metric.key: metric.value for metric in best.metrics}
    assert (best.name, figures["test/accuracy"]) == ("student", pytest.approx(0.93))
    assert set(names["best"]["name"]) == {"student"}
    matches = [version for version in names["versions"] if version.name == model_name]
    assert sorted(int(version.version) for version in matches) == [1, 2, 4]


def test_the_pages_lines_load_the_champion_and_refuse_a_changed_file(home, champion, model_name, monkeypatch):
    stored = np.load(home.artifacts / "ingest" / "shards" / "test" / "images.npy")
    Image.fromarray(stored[2, ..., 0]).save(home.folder / "shoe.png")
    monkeypatch.chdir(home.folder)
    ours, theirs = (
        example("how-to/champion.md", named).replace("fashion-mnist-student", model_name)
        for named in ("reflux.api", "pyfunc.load_model")
    )
    names: dict = {}
    exec(ours.replace("data/shoe.png", "shoe.png"), names)  # noqa: S102 - our own page
    assert names["prediction"].class_name == "shirt"
    exec(theirs.replace("28, 28", "16, 16"), names)  # noqa: S102
    assert names["logits"].shape == (1, 3)

    flip_byte(model_name, 1, "requirements.txt")
    with pytest.raises(UserError, match=r"A file of .* was changed"):
        exec(ours, {})  # noqa: S102
    with pytest.raises(SystemExit, match=r"A file of .* version 1 was changed"):
        exec(theirs, {})  # noqa: S102
