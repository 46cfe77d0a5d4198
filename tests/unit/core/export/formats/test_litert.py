"""Files of a tiny network, made by LiteRT's converter and run by LiteRT."""

import json
import zipfile

import numpy as np
import pytest
import torch

from reflux.components.advice.preflight.rehearsal import as_if_trained
from reflux.components.core.export import converters, program
from reflux.components.core.export.formats import litert
from reflux.components.core.export.network import load
from reflux.components.modalities.image.models.pixel_model import pixel_model

pytestmark = pytest.mark.long
pytest.importorskip("ai_edge_litert", reason="pip install ai-edge-litert")

CLASSES = ("a", "b", "c")
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 1, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def installed_once(converters_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converters, "HOME", converters_home)
        yield


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    model = pixel_model("resnet8_tiny", CLASSES, 12, 1, (0.3,), (0.2,))
    as_if_trained(model, PIXELS)
    return model


def test_a_file_answers_as_the_student_whatever_the_batch_is_and_names_its_classes(student, tmp_path):
    path = tmp_path / "student.tflite"
    expected, differences = program.forward(student, PIXELS), {}
    for calibration in (None, PIXELS):
        path.write_bytes(litert.make(program.Source(student), calibration))
        network = load(path)
        assert (network.channels, network.image_size) == (1, 12)
        largest = max(np.abs(network.run(PIXELS[:n]) - expected[:n]).max() for n in (1, 2, 7))
        differences[calibration is None] = largest / np.ptp(expected)
        with zipfile.ZipFile(path) as archive:
            assert json.loads(archive.read(litert.CLASSES)) == list(CLASSES)
    assert differences[True] < 1e-4 < differences[False] < 0.1


def test_the_same_student_gives_the_same_file(student):
    first, again = (litert.make(program.Source(student), PIXELS) for _ in range(2))
    assert first == again


def test_what_the_converter_lacks_is_named_in_its_first_line(student):
    class Bessel(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    source = program.Source(pixel_model("resnet8_tiny", CLASSES, 12, 1, (0.3,), (0.2,)))
    source.student.net.trunk.insert(1, Bessel())
    with pytest.raises(ValueError, match="bessel_j0") as refused:
        litert.make(source, None)
    assert program.operator_in(str(refused.value), source.exported) == "aten.special_bessel_j0 in the layer net.trunk.1"
