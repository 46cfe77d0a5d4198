"""Models of a tiny network, made and run for real."""

import json
import zipfile

import numpy as np
import pytest
import torch

from reflux.components.advice.preflight.rehearsal import as_if_trained
from reflux.components.core.export import program
from reflux.components.core.export.formats import openvino as module
from reflux.components.core.export.network import load
from reflux.components.modalities.image.models.pixel_model import pixel_model

pytestmark = pytest.mark.long
openvino = pytest.importorskip("openvino", reason="pip install openvino")

CLASSES = ("a", "b", "c")
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 1, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    model = pixel_model("resnet8_tiny", CLASSES, 12, 1, (0.3,), (0.2,))
    as_if_trained(model, PIXELS)
    return program.Source(model)


@pytest.mark.parametrize(("calibration", "least", "most"), [(None, 0, 1e-4), (PIXELS, 1e-4, 0.1)], ids=["fp32", "int8"])
def test_a_model_answers_as_the_student_whatever_the_batch_is_and_names_its_classes(
    source, tmp_path, calibration, least, most
):
    path = tmp_path / "student.zip"
    path.write_bytes(module.make(source, calibration))
    network, expected = load(path), program.forward(source.student, PIXELS)
    assert (network.channels, network.image_size) == (1, 12)
    difference = max(np.abs(network.run(PIXELS[:n]) - expected[:n]).max() for n in (1, 2, 7))
    assert least <= difference / np.ptp(expected) < most
    with zipfile.ZipFile(path) as archive:
        model = openvino.Core().read_model(archive.read("student.xml"), archive.read("student.bin"))
    assert json.loads(model.get_rt_info("classes").astype(str)) == list(CLASSES)


def test_the_same_student_gives_the_same_file(source):
    first, again = (module.make(source, PIXELS) for _ in range(2))
    assert first == again
