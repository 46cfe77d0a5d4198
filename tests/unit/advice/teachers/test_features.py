from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reflux.components.advice.plan.probe import features_of
from reflux.components.advice.teachers import features as module
from reflux.components.advice.teachers.candidates import Candidate
from reflux.components.advice.teachers.features import features, missing
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.pixel_model import adapted, network, pixel_model, save
from reflux.components.stages.pretrain.weights import pretrained
from tests.workspaces import watched

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 1), np.uint8)


@pytest.fixture
def candidate(tmp_path, monkeypatch) -> Candidate:
    monkeypatch.chdir(tmp_path)
    return saved("one.safetensors")


def saved(name: str) -> Candidate:
    save(pixel_model("resnet8", ("a", "b"), 16, 3, (0.5,) * 3, (0.2,) * 3), Path(name))
    return Candidate(name, "resnet8", name, Path(name))


def test_features_are_the_frozen_networks(candidate):
    model = adapted(pretrained("resnet8", candidate.weights, candidate.file), ("a", "b"), 16, 1).eval()
    expected = features_of(model, PIXELS, CPU)
    assert np.array_equal(features(candidate, 16, PIXELS, CPU, lambda _: None), expected)
    again = features(candidate, 16, PIXELS[::-1], CPU, lambda _: None)
    assert np.array_equal(again, expected[::-1]), "kept ones are found by their image"


def test_what_is_kept_is_not_computed_again(candidate, monkeypatch):
    calls, advanced = watched(monkeypatch, module, "compute"), []
    features(candidate, 16, PIXELS[:4], CPU, advanced.append)
    assert missing(candidate, 16, PIXELS, CPU) == 2
    features(candidate, 16, PIXELS, CPU, advanced.append)
    features(candidate, 16, PIXELS, CPU, advanced.append)
    assert [len(call["pixels"]) for call in calls] == [4, 2]
    assert sum(advanced) == 6
    features(candidate, 24, PIXELS, CPU, advanced.append)
    features(saved("two.safetensors"), 16, PIXELS, CPU, advanced.append)
    changed = PIXELS.copy()
    changed[0, 0, 0] ^= 1
    features(candidate, 16, changed, CPU, advanced.append)
    assert [len(call["pixels"]) for call in calls] == [4, 2, 6, 6, 1], "size, weights and image decide"


def test_damaged_features_are_computed_again(candidate):
    expected = features(candidate, 16, PIXELS, CPU, lambda _: None)
    (kept,) = module.KEPT.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert np.array_equal(features(candidate, 16, PIXELS, CPU, lambda _: None), expected)


def test_weights_of_another_network_are_refused(candidate):
    save_file(network("resnet20", 10, 3).state_dict(), "other.safetensors")
    other = Candidate("resnet8=other.safetensors", "resnet8", "other.safetensors", Path("other.safetensors"))
    with pytest.raises(UserError, match="does not fit the network"):
        features(other, 16, PIXELS, CPU, lambda _: None)
    assert missing(other, 16, PIXELS, CPU) == len(PIXELS), "nothing is kept"
