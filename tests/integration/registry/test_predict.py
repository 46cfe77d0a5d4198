import json
import os
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from reflux.components.core.errors import UserError
from reflux.components.registry import client
from reflux.components.registry.history import history
from reflux.components.registry.predict import Prediction, Unreadable, find, load_model, predict
from reflux.components.registry.register import register
from reflux.components.registry.rollback import rollback
from tests.integration.registry.faults import flip_byte

CLASSES = ["boot", "dress", "shirt"]


@pytest.fixture
def image(home):
    """The third test image (class 2, shirt) as a file; it is stored at the size that the network takes."""
    stored = np.load(home.evaluation(right=200) / "ingest" / "shards" / "test" / "images.npy")[2, ..., 0]
    path = home.folder / "shirt.png"
    Image.fromarray(stored).save(path)
    return path


def classify(image: Path, model_uri: str) -> Prediction | Unreadable:
    (result,) = predict([image], model_uri)
    return result


def test_the_champion_names_the_class_with_probabilities_that_sum_to_one(champion, image, model_name):
    prediction = classify(image, champion)
    assert (prediction.class_name, prediction.model_name, prediction.version) == ("shirt", model_name, 1)
    assert next(iter(prediction.probabilities)) == "shirt"
    assert sorted(prediction.probabilities) == CLASSES
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.probabilities["shirt"] == pytest.approx(np.exp(4) / (np.exp(4) + 2), rel=1e-5)


def test_a_version_can_be_named(champion, image, model_name):
    assert classify(image, f"models:/{model_name}/1").class_name == "shirt"


def test_color_files_are_read_as_ingest_reads_them(champion, image):
    Image.open(image).convert("RGBA").save(image)
    assert classify(image, champion).class_name == "shirt"


def test_pickles_are_refused_from_then_on(champion, image, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    classify(image, champion)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_a_changed_file_is_refused(champion, image, model_name):
    uri = MlflowClient().get_model_version_download_uri(model_name, "1").removeprefix("file://")
    with open(f"{uri}/model.onnx", "ab") as file:
        file.write(b"\x00")
    with pytest.raises(UserError, match="version 1 was changed"):
        classify(image, champion)


def test_a_model_is_checked_when_it_is_loaded_and_then_needs_neither_its_files_nor_mlflow(
    champion, image, model_name, monkeypatch
):
    model = load_model(champion)
    assert (model.name, model.version, model.classes) == (model_name, 1, CLASSES)
    monkeypatch.setattr(client, "connect", None)
    (prediction,) = model.predict([image])
    assert prediction.class_name == "shirt"
    flip_byte(model_name, 1, "requirements.txt")
    monkeypatch.undo()
    with pytest.raises(UserError, match="version 1 was changed"):
        load_model(champion)


def test_a_champion_that_was_set_by_hand_is_loaded_only_if_it_was_promoted_before_but_mlflow_alone_loads_any(
    keys, home, model_name, registered, judge, aliases
):
    for right in (170, 180):
        assert judge(registered(right)).promoted
    assert judge(registered(right=100)).outcome == "rejected"
    champion, mlflow_client = f"models:/{model_name}@champion", MlflowClient()
    mlflow_client.set_registered_model_alias(model_name, "champion", "3")
    with pytest.raises(UserError, match="version 3 never was champion"):
        load_model(champion)
    with pytest.raises(UserError, match="version 3 never was champion"):
        predict([], champion)
    assert mlflow.pyfunc.load_model(champion).metadata.model_uuid
    mlflow_client.set_registered_model_alias(model_name, "champion", "1")
    assert load_model(champion).version == 1
    (moved, *_) = history(home.experiment, model_name).by_hand
    assert "The alias champion was moved by hand: it is version 1" in moved


def test_a_champion_whose_files_or_hash_were_changed_is_refused_until_a_rollback(
    keys, home, model_name, registered, judge, aliases
):
    for right in (160, 170, 180):
        assert judge(registered(right)).promoted
    for version, harm in (
        (3, lambda: MlflowClient().set_model_version_tag(model_name, "3", "files_sha256", "0" * 64)),
        (2, lambda: flip_byte(model_name, 2, "model.onnx")),
    ):
        assert load_model(f"models:/{model_name}@champion").version == version
        harm()
        with pytest.raises(UserError, match=f"version {version} was changed, added or removed"):
            load_model(f"models:/{model_name}@champion")
        rollback(home.experiment, model_name, "it was changed", to=version - 1)
    assert load_model(f"models:/{model_name}@champion").version == 1


def test_what_is_missing_is_said(home, image, model_name):
    with pytest.raises(UserError, match=r"No model is registered as .* `reflux run` makes one"):
        classify(image, f"models:/{model_name}@champion")
    register(home.evaluation(right=190), model_name, home.experiment, home.lineage())
    with pytest.raises(UserError, match="has no champion yet"):
        classify(image, f"models:/{model_name}@champion")
    with pytest.raises(UserError, match="has no alias best"):
        classify(image, f"models:/{model_name}@best")
    with pytest.raises(UserError, match="is not a model: write models:/NAME@champion"):
        classify(image, "runs:/abc/model")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"not an image", "is text and no image"), (None, "can't be read")]
)
def test_an_unreadable_image_says_why_among_others_that_are_classified(champion, home, image, content, reason):
    path = home.folder / "odd.png"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    first, odd, last = predict([image, path, image], champion)
    assert first == last == classify(image, champion)
    assert isinstance(odd, Unreadable)
    assert odd.path == path
    assert odd.reason.startswith(reason)


def test_a_thousand_images_take_seconds_and_keep_their_places(champion, home):
    stored = np.load(home.artifacts / "ingest/shards/test/images.npy")[..., 0]
    folder = home.folder / "many"
    folder.mkdir()
    for number in range(1000):
        Image.fromarray(stored[number % 200]).save(folder / f"{number:04}.png")
    images, nothing = find([folder])
    began = time.monotonic()
    classes = [each.class_name for each in predict(images, champion) if isinstance(each, Prediction)]
    assert time.monotonic() - began < 30, "on a busy machine; idle, it takes one or two"
    assert nothing == []
    assert classes == [CLASSES[number % 200 % 3] for number in range(1000)]


def test_files_folders_and_patterns_name_each_image_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "new/b.JPG", "new/deep/c.heic", "new/.hidden/d.png", "new/notes.txt", "e [1].png", "f.dat"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("empty").mkdir()
    found = {
        "new": ["new/b.JPG", "new/deep/c.heic"],
        "*.png": ["a.png", "e [1].png"],
        "new/**/*.heic": ["new/deep/c.heic"],
        "e [1].png": ["e [1].png"],
        "f.dat": ["f.dat"],
        "ne*": ["new/b.JPG", "new/deep/c.heic"],
    }
    for pattern, names in found.items():
        assert find([Path(pattern)]) == ([Path(name) for name in names], [])
    assert find(map(Path, ("new", "a.png", "*.png", "gone.png", "*.gif", "empty"))) == (
        [Path(name) for name in ("new/b.JPG", "new/deep/c.heic", "a.png", "e [1].png")],
        [
            Unreadable(Path("gone.png"), "does not exist"),
            Unreadable(Path("*.gif"), "does not exist"),
            Unreadable(Path("empty"), "is a folder without images"),
        ],
    )


def test_a_server_that_is_away_is_named_without_its_password(image, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        client.Unreachable, match=r"MLflow at http://127\.0\.0\.1:9 does not answer: start it"
    ) as caught:
        classify(image, "models:/any@champion")
    assert "secret" not in str(caught.value)


def test_without_a_tracking_uri_the_sentence_says_so(image, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is not set"):
        classify(image, "models:/any@champion")


@pytest.mark.slow
def test_the_champion_answers_in_a_fresh_process_without_this_project(champion, home, tmp_path):
    script = tmp_path / "elsewhere.py"
    script.write_text(
        dedent(f"""
        import importlib.util
        import os
        import sys

        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        sys.meta_path = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
        sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "reflux", "components"))]
        assert importlib.util.find_spec("reflux") is None

        import mlflow
        import numpy as np

        model = mlflow.pyfunc.load_model({champion!r})
        images = np.load({str(home.artifacts / "ingest/shards/test/images.npy")!r}).transpose(0, 3, 1, 2)
        for count in (1, 200):
            print((model.predict(np.ascontiguousarray(images[:count]))["logits"].argmax(axis=1)).tolist())
        assert "torch" not in sys.modules
        """)
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, many = map(json.loads, done.stdout.strip().splitlines())
    assert one == [0]
    assert many == [i % 3 for i in range(200)]
