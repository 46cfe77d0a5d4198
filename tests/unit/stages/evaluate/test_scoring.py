import numpy as np
import onnx
import pytest
import torch

from reflux.components.core.data.shards import Shard
from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.core.export.network import load
from reflux.components.modalities.image import stress
from reflux.components.modalities.image.models.pixel_model import pixel_model
from reflux.components.modalities.image.preprocess import fit
from reflux.components.stages.evaluate import scoring

CLASSES = ("a", "b", "c")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pixel_model("resnet8", CLASSES, 12, 1, [0.3], [0.2]).eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "student.onnx"
    onnx.save(program.to_onnx(program.export(model)), path)
    return {"onnx": path}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (1030, 12, 12, 1), dtype=np.uint8)


def test_everyone_answers_every_image_in_order(model, files, images):
    seen = []
    logits = scoring.predict_all(
        images, scoring.on_device(model, CPU), {"student": model, "control": model}, files, seen.append
    )
    assert set(logits) == {"teacher", "student", "control", "onnx"}
    assert all(rows.shape == (1030, 3) and rows.dtype == np.float32 for rows in logits.values())
    assert sum(seen) == 4 * 1030
    last = program.forward(model, fit(images[-1:], model.spec.image_size, model.spec.in_chans))
    assert np.abs(logits["onnx"][-1] - last).max() < 1e-5
    assert np.abs(logits["student"][-1] - last).max() < 1e-5


def test_logits_that_are_not_finite_are_one_sentence(model, files, images):
    broken = pixel_model("resnet8", CLASSES, 12, 1, [0.3], [0.2]).eval()
    torch.nn.init.constant_(broken.net.head.bias, float("nan"))
    with pytest.raises(UserError, match="The control gives 3 of 3 test images logits that are not finite"):
        scoring.predict_all(
            images[:3], scoring.on_device(model, CPU), {"student": model, "control": broken}, files, lambda count: None
        )


def test_corrupted_accuracies_are_those_of_each_contender(model, files, images):
    test = Shard(images, np.arange(1030) % 3, np.arange(1030, dtype=np.uint64))
    runs = {
        "always b": lambda pixels: np.eye(3, dtype=np.float32)[[1] * len(pixels)],
        "onnx": load(files["onnx"]).run,
    }
    seen = []
    accuracies = scoring.corrupted_accuracies(test, runs, model.spec, seen.append)
    assert sum(seen) == 1030
    assert set(accuracies["always b"].values()) == {343 / 1030}
    noisy = dict(stress.corrupted(images, test.ids))["noise"]
    pixels = fit(noisy, model.spec.image_size, model.spec.in_chans)
    expected = program.forward(model, pixels).argmax(axis=1) == test.labels
    assert accuracies["onnx"]["noise_accuracy"] == pytest.approx(expected.mean())
    four = [accuracies["onnx"][f"{kind}_accuracy"] for kind in stress.KINDS]
    assert accuracies["onnx"]["corrupted_accuracy"] == pytest.approx(np.mean(four))


@pytest.mark.parametrize(("stored", "channels"), [(8, 1), (12, 3), (20, 1)])
def test_a_teacher_s_file_takes_stored_images_and_answers_in_their_order(tmp_path, stored, channels):
    torch.manual_seed(0)
    teacher = pixel_model("resnet8", CLASSES, 12, 3, [0.3] * 3, [0.2] * 3).eval()
    exported = program.export(teacher, batch=1, shape=(channels, stored, stored))
    onnx.save(program.to_onnx(exported), tmp_path / "teacher.onnx")
    stored_images = np.random.default_rng(0).integers(0, 256, (40, stored, stored, channels), dtype=np.uint8)
    logits = scoring.one_by_one(tmp_path / "teacher.onnx", threads=3)(stored_images)
    expected = program.forward(teacher, np.ascontiguousarray(stored_images.transpose(0, 3, 1, 2)))
    assert np.abs(logits - expected).max() < 1e-4
    assert np.ptp(expected, axis=0).min() > 1e-3  # or any order would pass


def test_a_file_that_answers_otherwise_is_refused(tmp_path):
    logits = np.array([[1.0, 2.0], [2.0, 1.0]], np.float32)
    scoring.require_same_predictions(logits, logits + 0.5, tmp_path / "same.onnx")
    with pytest.raises(UserError, match=r"other\.onnx is not the student: it predicts another class on 2 of 2"):
        scoring.require_same_predictions(logits, -logits, tmp_path / "other.onnx")
