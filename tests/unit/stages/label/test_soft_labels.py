from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reflux.components.core.data.draws import draws
from reflux.components.core.data.shards import Shard
from reflux.components.core.errors import UserError
from reflux.components.core.teacher.soft_labels import Format, SoftLabels, format_for
from reflux.components.modalities.image.models.pixel_model import pixel_model
from reflux.components.modalities.image.views.augment import render
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.stages.label.soft_labels import prove, storing_error, teacher_logits
from reflux.components.stages.label.store import fill

CPU = torch.device("cpu")
DENSE = Format(10, 0)
AUGMENT = {"shift": 0.2, "flip": True, "crop_scale": 0.8, "erase": 0.3}


@pytest.fixture
def images() -> Shard:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 12, 12, 1), dtype=np.uint8)
    return Shard(pixels, np.full(10, -1), rng.integers(0, 2**63, 10, np.uint64))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return pixel_model("resnet8_slim", tuple("abcdefghij"), 12, 1, (0.5,), (0.25,)).eval()


def answer_of(teacher, images: Shard, seed: int = 7):
    return partial(teacher_logits, teacher=teacher, views=Views(images, seed, AUGMENT), device=CPU)


def write(kept: Path, teacher, images: Shard, batch_size: int = 4, format: Format = DENSE) -> SoftLabels:
    filled = fill(
        {"teacher": "one"},
        images.ids,
        3,
        format,
        batch_size,
        answer_of(teacher, images),
        lambda _count: None,
        kept=kept,
    )
    return SoftLabels(filled.folder, len(images), 3, format)


@pytest.mark.parametrize("format", [DENSE, Format(10, 4)])
def test_every_stored_logit_is_the_teachers_answer_to_that_view(tmp_path: Path, teacher, images: Shard, format):
    store = write(tmp_path, teacher, images, format=format)
    for view in range(3):
        pixels = render(images.images, draws(7, images.ids, np.full(10, view), 11), **AUGMENT, device=CPU)
        with torch.inference_mode():
            logits = teacher(pixels)
        records = store.records(np.arange(10), np.full(10, view))
        assert store.format.distance(logits, records).max() < 0.02 * (logits.max() - logits.min())
    assert len({store.records(np.arange(10), np.full(10, view)).tobytes() for view in range(3)}) == 3


@pytest.mark.parametrize("format", [DENSE, Format(10, 4)])
def test_the_proof_passes_on_what_was_written_and_names_what_was_not(tmp_path: Path, teacher, images: Shard, format):
    store = write(tmp_path, teacher, images, batch_size=3, format=format)
    proof = prove(store, 10, 20, 7, answer_of(teacher, images))
    assert proof["n"] == 20
    assert proof["max_abs_difference"] <= proof["tolerance"]
    with pytest.raises(UserError, match="Recomputed soft labels differ"):
        prove(store, 10, 20, 7, answer_of(teacher, images, seed=8))


def test_a_teacher_that_diverged_leaves_no_shard(tmp_path: Path, teacher, images: Shard):
    teacher.net.head.bias.data.fill_(1e6)
    for format in (DENSE, Format(10, 4)):
        with pytest.raises(UserError, match="logits are not finite"):
            write(tmp_path, teacher, images, format=format)
    assert not list(tmp_path.rglob("0*"))


def test_the_error_of_storing_is_what_a_hand_finds():
    logits = torch.tensor([[4.0, 2.0, 1.0, 0.0], [0.1, 0.2, 0.3, 5.0]])
    dense = storing_error(format_for(4, 32), logits)
    assert dense == {"storing_max_abs_difference": float((logits - logits.half().float()).abs().max())}
    errors = storing_error(Format(4, 2), logits)
    spread = logits.clone()
    spread[0, 2:] = torch.logsumexp(logits[0, 2:], 0) - np.log(2)
    spread[1, :2] = torch.logsumexp(logits[1, :2], 0) - np.log(2)
    for temperature in (1, 4):
        p, q = (F.softmax(x.double() / temperature, 1) for x in (logits, spread))
        kl = (p * (p / q).log()).sum(1)
        assert errors[f"storing_kl_max_T{temperature}"] == pytest.approx(kl.max().item(), abs=1e-6)
        assert errors[f"storing_kl_mean_T{temperature}"] == pytest.approx(kl.mean().item(), abs=1e-6)
