"""Which layers LoRA changes, and that the merged network is the trained one: with PEFT, where it is installed."""

import pytest
import torch
from torch import nn

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import ModelSpec, PixelModel, pixel_model
from reflux.components.stages.finetune import lora
from reflux.components.stages.finetune.lora import adaptable, inject, layers_to_adapt, merge

LAYERS = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}


@pytest.fixture
def vit() -> PixelModel:
    torch.manual_seed(0)
    return pixel_model("test_vit", ("a", "b", "c"), 160, 3, (0.5,) * 3, (0.25,) * 3)


def ends(names: list[str]) -> set[str]:
    return {".".join(name.split(".")[-2:]) for name in names}


def test_every_linear_layer_below_the_head_can_be_changed(vit):
    assert ends(adaptable(vit)) == LAYERS
    assert len(adaptable(vit)) == 6 * len(LAYERS)


class ReadsItsWeight(nn.Module):
    """A network that computes with a linear layer's weight, as BEiT does with its ``qkv``."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.qkv, self.proj, self.head = nn.Flatten(), nn.Linear(48, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.proj(nn.functional.linear(self.flat(x), self.qkv.weight)))


def test_a_layer_whose_weight_the_network_reads_by_itself_is_none():
    model = PixelModel(ReadsItsWeight(), ModelSpec("beit", ("a", "b", "c"), 4, 3, (0.5,) * 3, (0.25,) * 3))
    assert adaptable(model) == ["proj"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lora, "find_spec", lambda _: object())


@pytest.mark.usefixtures("installed")
def test_targets_are_ends_of_names_and_unknown_ones_are_refused_with_the_known(vit):
    assert ends(layers_to_adapt(vit, ["qkv", "mlp.fc1"])) == {"attn.qkv", "mlp.fc1"}
    assert ends(layers_to_adapt(vit, [])) == LAYERS
    with pytest.raises(UserError, match=r"names v, and no .* ends in it: they end in attn.proj, attn.qkv, mlp"):
        layers_to_adapt(vit, ["qkv", "v"])


@pytest.mark.usefixtures("installed")
def test_a_network_without_linear_layers_is_refused():
    model = pixel_model("resnet8", ("a", "b"), 16, 1, (0.5,), (0.25,))
    with pytest.raises(UserError, match="changes linear layers, and resnet8 has none below its head: take a trans"):
        layers_to_adapt(model, [])


def test_without_peft_a_sentence_says_how_to_install_it(vit, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lora, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs the package peft: `pip install peft`"):
        layers_to_adapt(vit, [])


def test_only_the_change_and_the_head_are_trained_and_merging_changes_no_output(vit):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 160, 160)).float()
    names = list(vit.net.state_dict())
    with torch.no_grad():
        before = vit.eval()(pixels)
        change = inject(vit, layers_to_adapt(vit, ["attn.qkv"]), rank=3)
        assert torch.equal(vit(pixels), before), "the change is zero at first"
    trained = {name: parameter.shape for name, parameter in vit.net.named_parameters() if parameter.requires_grad}
    lows = {name for name in trained if "lora_" in name}
    assert {shape[0] for name, shape in trained.items() if "lora_A" in name} == {3}
    assert len(lows) == 2 * 6
    assert {name.rpartition(".")[2] for name in trained if name not in lows} == {"weight", "bias"}
    assert all(name.startswith("head.") for name in trained if name not in lows)
    with torch.no_grad():
        for name, parameter in vit.net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        after = vit(pixels)
        assert not torch.allclose(after, before, atol=1e-2)
        merge(change)
        assert torch.allclose(vit(pixels), after, atol=1e-4)
    assert list(vit.net.state_dict()) == names
    assert all(parameter.requires_grad for parameter in vit.parameters())
