"""The rehearsed export against the real one, and of a network that can't be exported."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reflux.components.advice.plan.networks import LADDER, PRETRAINED
from reflux.components.advice.preflight import checks
from reflux.components.advice.preflight.rehearsal import rehearse
from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.modalities.image.models import small_nets
from reflux.components.stages.compress.ship import writer
from tests.trained import CLASSES, SEEN

pytestmark = pytest.mark.slow


def test_the_rehearsed_file_is_as_large_as_the_trained_one(finished):
    student = checks.untrained("resnet8", SEEN, 1, tuple(CLASSES))
    facts = rehearse(student, "auto", 1e-3)
    trained = (finished / "artifacts/compress/student.onnx").stat().st_size
    assert abs(facts["size_bytes"]["onnx"] - trained) < 100
    assert facts["params"] == sum(parameter.numel() for parameter in student.parameters())


@pytest.mark.long
@pytest.mark.parametrize(("name", "classes"), [("resnet8_slim", 10), ("resnet8_tiny", 100), (PRETRAINED.name, 10)])
def test_a_plan_knows_what_a_students_files_weigh(name, classes):
    student = checks.untrained(name, 28, 3, tuple(map(str, range(classes))))
    sizes = rehearse(student, "auto", 1e-3)["size_bytes"]
    network = next(network for network in (*LADDER, PRETRAINED) if network.name == name)
    assert network.kb_of(classes) == pytest.approx(sizes["onnx"] / 1024, abs=1)
    assert network.kb_of(classes, int8=True) == pytest.approx(sizes["onnx_int8"] / 1024, abs=1)


def test_parity_is_rehearsed_as_well():
    with pytest.raises(UserError, match=r"student\.(pt2|onnx) is not the student"):
        rehearse(checks.untrained("resnet8", 12, 1), "auto", 1e-15)


class Undecided(nn.Module):
    """Branches on its input, which no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_a_network_that_cannot_be_exported_is_one_sentence(monkeypatch):
    def build(in_chans: int, num_classes: int) -> small_nets.SmallNet:
        net = small_nets.resnet(1, (4, 4, 4, 4), in_chans, num_classes)
        net.trunk.append(Undecided())
        return net

    monkeypatch.setitem(small_nets.SMALL_NETS, "undecided", partial(build))
    torch.manual_seed(0)
    with pytest.raises(UserError, match=r"student\.model = undecided can't be exported \(.+\): choose another student"):
        rehearse(checks.untrained("undecided", 12, 1), "auto", 1e-3)


class Bessel(nn.Module):
    """What ONNX and ExecuTorch have no operator for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.long
def test_an_operator_that_onnx_lacks_is_named_with_its_layer():
    student = checks.untrained("resnet8_tiny", 12, 1)
    student.net.trunk.insert(1, Bessel())
    sentence = r"can't be exported \(aten\.special_bessel_j0 in the layer net\.trunk\.1: [^.]+\): choose another"
    with pytest.raises(UserError, match=sentence):
        rehearse(student, "auto", 1e-3)


@pytest.mark.long
def test_an_operator_that_a_runtime_lacks_is_named_with_its_layer(monkeypatch, tmp_path):
    student = checks.untrained("resnet8_tiny", 12, 1)
    student.net.trunk.append(Bessel())
    monkeypatch.setattr(program, "to_onnx", lambda _: None)  # ONNX lacks it, too
    write = writer(student, np.zeros((1, 1, 12, 12), np.uint8))
    with pytest.raises(
        UserError, match=r"a file of ExecuTorch \(aten.*bessel_j0 in the layer net\.trunk\..* or compress\.ships"
    ):
        write("executorch", tmp_path / "student.pte")
