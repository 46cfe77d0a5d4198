from pathlib import Path

import numpy as np
import pytest
import torch

from components.core.errors import UserError
from components.core.models import pixel_model
from components.core.shards import Shard
from components.core.views import draws, render
from components.label.soft_labels import prove, write_soft_labels

CPU = torch.device("cpu")
AUGMENT = {"shift": 0.2, "flip": True, "crop_scale": 0.8, "erase": 0.3}


@pytest.fixture
def images() -> Shard:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 12, 12, 1), dtype=np.uint8)
    return Shard(pixels, np.full(10, -1), rng.integers(0, 2**63, 10, np.uint64))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return pixel_model("resnet8_slim", ("a", "b", "c"), 12, 1, (0.5,), (0.25,)).eval()


def write(path: Path, teacher, images: Shard, batch_size: int = 4) -> np.ndarray:
    write_soft_labels(path, teacher, images, 3, batch_size, 7, AUGMENT, CPU, lambda _count: None)
    return np.load(path, mmap_mode="r")


def test_every_stored_logit_is_the_teachers_answer_to_that_view(tmp_path: Path, teacher, images: Shard):
    store = write(tmp_path / "logits.npy", teacher, images)
    assert store.shape == (3, 10, 3)
    assert store.dtype == np.float16
    for view in range(3):
        pixels = render(images.images, draws(7, images.ids, np.full(10, view)), **AUGMENT, device=CPU)
        with torch.inference_mode():
            answer = teacher(pixels)
        assert np.abs(answer.numpy() - store[view]).max() < 0.02 * np.ptp(store)
    assert len({store[view].tobytes() for view in range(3)}) == 3


def test_the_proof_passes_on_what_was_written_and_names_what_was_not(tmp_path: Path, teacher, images: Shard):
    path = tmp_path / "logits.npy"
    write(path, teacher, images, batch_size=3)
    proof = prove(path, teacher, images, 20, 7, AUGMENT, CPU)
    assert proof["n"] == 20
    assert proof["max_abs_difference"] <= proof["tolerance"]
    with pytest.raises(UserError, match="recomputed soft labels differ"):
        prove(path, teacher, images, 20, 8, AUGMENT, CPU)


def test_a_teacher_that_diverged_leaves_no_file(tmp_path: Path, teacher, images: Shard):
    teacher.net.head.bias.data.fill_(1e6)
    with pytest.raises(UserError, match="logits are not finite"):
        write(tmp_path / "logits.npy", teacher, images)
    assert not list(tmp_path.iterdir())
