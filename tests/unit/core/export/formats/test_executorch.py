"""Programs of a tiny network, made and run for real."""

import json

import numpy as np
import pytest
import torch
from executorch.runtime import Runtime

from reflux.components.advice.preflight.rehearsal import as_if_trained
from reflux.components.core.export import program
from reflux.components.core.export.formats import executorch
from reflux.components.core.export.network import load
from reflux.components.modalities.image.models.pixel_model import pixel_model

CLASSES = ("a", "b", "c")
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 1, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    model = pixel_model("resnet8_tiny", CLASSES, 12, 1, (0.3,), (0.2,))
    as_if_trained(model, PIXELS)
    return model


def difference(student, path) -> float:
    """The largest difference of a logit, in multiples of the student's range, whatever the batch is."""
    network, expected = load(path), program.forward(student, PIXELS)
    assert (network.channels, network.image_size) == (1, 12)
    return max(np.abs(network.run(PIXELS[:n]) - expected[:n]).max() for n in (1, 2, 7)) / np.ptp(expected)


@pytest.mark.long
def test_an_int8_program_answers_almost_as_the_student_and_names_its_classes(student, tmp_path):
    path = tmp_path / "student.pte"
    path.write_bytes(executorch.make(program.Source(student), PIXELS))
    assert 1e-4 < difference(student, path) < 0.1
    named = Runtime.get().load_program(path)
    assert json.loads(named.load_method("classes").execute([])[0]) == list(CLASSES)


@pytest.mark.long
def test_an_fp32_program_answers_as_the_student(student, tmp_path):
    path = tmp_path / "student.pte"
    path.write_bytes(executorch.make(program.Source(student), None))
    assert difference(student, path) < 1e-4


@pytest.mark.long
def test_the_same_student_gives_the_same_file(student):
    first, again = (executorch.make(program.Source(student), PIXELS) for _ in range(2))
    assert first == again
