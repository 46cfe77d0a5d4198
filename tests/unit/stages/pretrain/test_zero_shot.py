"""An image-text model of open_clip becomes a classifier by the classes' names."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import check_overrides
from reflux.components.modalities.image.models.image_text import config_of, image_size
from reflux.components.modalities.image.models.pixel_model import load, network, save
from reflux.components.stages.pretrain.zero_shot import zero_shot_teacher
from tests.pairs import MEAN, SIDE, STD, write_pair
from tests.workspaces import ROOT

ASKED = ("pretrain.mode=zero-shot", "pretrain.weights=open_clip", "pretrain.model=open_clip:ViT-B-32/openai")


@pytest.fixture
def open_clip():
    return pytest.importorskip("open_clip")


@pytest.mark.long
def test_the_head_is_the_mean_of_the_prompts_embeddings(tmp_path: Path, open_clip):
    name, words, prompts = write_pair(tmp_path / "pair"), ["dark gray", "white"], ["a {} square.", "{}"]
    teacher = zero_shot_teacher(name, ("dark", "bright"), words, prompts).eval()
    assert (teacher.spec.classes, teacher.spec.image_size, teacher.spec.mean) == (("dark", "bright"), SIDE, MEAN)
    model = open_clip.create_model(name.removeprefix("open_clip:")).eval()
    tokenizer = open_clip.get_tokenizer(name.removeprefix("open_clip:"))
    pixels = torch.randint(0, 256, (5, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
        images = F.normalize(model.encode_image((pixels / 255 - mean) / std), dim=1)
        texts = [model.encode_text(tokenizer([prompt.format(word) for prompt in prompts])) for word in words]
        rows = torch.stack([F.normalize(F.normalize(each, dim=1).mean(0), dim=0) for each in texts])
        expected = model.logit_scale.exp() * images @ rows.T
        assert torch.allclose(teacher(pixels), expected, atol=1e-4)
        save(teacher, tmp_path / "teacher.safetensors")
        assert torch.allclose(load(tmp_path / "teacher.safetensors")(pixels), expected, atol=1e-4)


@pytest.mark.long
def test_names_are_open_clips(open_clip):
    assert image_size("open_clip:ViT-B-16-SigLIP-384/webli") == 384
    assert config_of("open_clip:ViT-B-32/openai")["quick_gelu"], "OpenAI's weights were trained with it"
    assert not config_of("open_clip:ViT-B-32/laion2b_s34b_b79k")["quick_gelu"]
    with pytest.raises(UserError, match=r"No image-text model is named ViT-B-32/opnai; did you mean .*ViT-B-32/openai"):
        config_of("open_clip:ViT-B-32/opnai")
    with pytest.raises(UserError, match=r"open_clip:local-dir:nowhere can't be had \(FileNotFoundError\)"):
        config_of("open_clip:local-dir:nowhere")


def test_without_the_package_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"needs the package open_clip_torch: `pip install open_clip_torch`"):
        network("open_clip:ViT-B-32/openai", 2, 3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (ASKED[:1], "mode = zero-shot, weights = open_clip and model = open_clip:NAME/TAG, all three"),
        (ASKED[1:], "mode = zero-shot, weights = open_clip and model = open_clip:NAME/TAG, all three"),
        (ASKED, "pretrain.mode = zero-shot makes a finished teacher, and finetune.strategy = full would train it"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: tuple[str, ...], sentence: str):
    with pytest.raises(UserError, match=sentence):
        check_overrides(list(settings), ROOT / "params.yaml")
    check_overrides([*ASKED, "finetune.strategy=none"], ROOT / "params.yaml")
