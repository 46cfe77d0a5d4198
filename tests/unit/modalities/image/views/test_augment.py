import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from reflux.components.core.data.draws import draws
from reflux.components.modalities.image.views.augment import DRAWS, render, view_draws

CPU = torch.device("cpu")
AUGMENTATIONS = [
    {"shift": 0.1, "flip": True, "crop_scale": 1.0, "erase": 0.0},
    {"shift": 0.0, "flip": False, "crop_scale": 0.5, "erase": 0.0},
    {"shift": 0.2, "flip": True, "crop_scale": 0.7, "erase": 0.5},
    {"shift": 0.0, "flip": False, "crop_scale": 1.0, "erase": 0.0, "rotate_deg": 30.0},
    {"shift": 0.1, "flip": True, "crop_scale": 0.7, "erase": 0.0, "rotate_deg": 180.0, "color": 0.8},
]


def some_images(count: int = 12, side: int = 16, channels: int = 3):
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8), rng.integers(0, 2**63, count, np.uint64)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_view_does_not_depend_on_its_neighbors(augment):
    images, ids = some_images()
    views = np.arange(12) % 4
    together = render(images, view_draws(3, ids, views), **augment, device=CPU)
    order = np.random.default_rng(0).permutation(12)
    for index in order:
        one = slice(index, index + 1)
        alone = render(images[one], view_draws(3, ids[one], views[one]), **augment, device=CPU)
        assert torch.equal(alone[0], together[index])


def test_images_of_more_than_the_cache_holds_are_rendered_in_parts_with_the_same_bits():
    images = np.random.default_rng(0).integers(0, 256, (5, 300, 300, 3), dtype=np.uint8)
    ids, augment = np.arange(5, dtype=np.uint64), {**AUGMENTATIONS[0], "color": 0.4}
    uniform = view_draws(3, ids, np.zeros(5, np.int64))
    together = render(images, uniform, **augment, device=CPU)
    assert images[0].size < 2**19 < images.size  # several images a part, and several parts
    for index in range(5):
        one = slice(index, index + 1)
        assert torch.equal(render(images[one], uniform[one], **augment, device=CPU)[0], together[index])


_ANOTHER_PROCESS = """
import json, sys
import numpy as np, torch
from reflux.components.modalities.image.views.augment import render, view_draws
torch.set_num_threads(2)
folder, augment = sys.argv[1], json.loads(sys.argv[2])
images, ids, views = (np.load(f"{folder}/{name}.npy") for name in ("images", "ids", "views"))
order = np.random.default_rng(1).permutation(len(ids))
parts = [order[:1], order[1:6], order[6:]]
made = [render(images[p], view_draws(3, ids[p], views[p]), **augment, device=torch.device("cpu")) for p in parts]
np.save(f"{folder}/made.npy", torch.cat(made)[np.argsort(order)].numpy())
"""


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_another_process_makes_the_same_views_in_any_order_and_batches(tmp_path: Path, augment):
    images, ids = some_images()
    views = np.arange(12) % 4
    for name, array in (("images", images), ("ids", ids), ("views", views)):
        np.save(tmp_path / f"{name}.npy", array)
    subprocess.run([sys.executable, "-c", _ANOTHER_PROCESS, str(tmp_path), json.dumps(augment)], check=True)
    here = render(images, view_draws(3, ids, views), **augment, device=CPU)
    assert np.array_equal(np.load(tmp_path / "made.npy"), here.numpy())


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_seed_image_and_view_each_change_the_view(augment):
    images, ids = some_images(1)
    images, ids = np.repeat(images, 64, 0), np.repeat(ids, 64)
    many = {
        render(images[:1], view_draws(0, ids[:1], np.array([v])), **augment, device=CPU).numpy().tobytes()
        for v in range(64)
    }
    assert len(many) > 16
    zero = np.zeros(64, np.int64)
    assert not torch.equal(
        render(images, view_draws(0, ids, np.arange(64)), **augment, device=CPU),
        render(images, view_draws(1, ids, np.arange(64)), **augment, device=CPU),
    )
    assert not torch.equal(
        render(images, view_draws(0, ids + np.arange(64, dtype=np.uint64), zero), **augment, device=CPU),
        render(images, view_draws(0, ids, zero), **augment, device=CPU),
    )


def test_without_augmentation_the_view_is_the_image():
    images, ids = some_images()
    none = render(images, draws(0, ids, np.zeros(12), 11), 0.0, False, 1.0, 0.0, CPU)
    assert np.array_equal(none.permute(0, 2, 3, 1).numpy(), images)


def test_shift_and_flip_move_pixels_and_bring_in_black():
    images = np.full((200, 8, 8, 1), 255, np.uint8)
    images[:, :, 0] = 100
    views = render(images, draws(0, np.arange(200, dtype=np.uint64), np.zeros(200), 11), 0.25, True, 1.0, 0.0, CPU)
    values = set(views.unique().tolist())
    assert values == {0, 100, 255}
    still = render(images, draws(0, np.arange(200, dtype=np.uint64), np.zeros(200), 11), 0.0, True, 1.0, 0.0, CPU)
    mirrored = still[:, 0, 4, 0] == 255
    assert torch.equal(still[:, 0, 4, 7] == 100, mirrored)
    assert 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize(("shift", "flip", "channels"), [(0.3, True, 3), (1.0, True, 1), (0.25, False, 3)])
def test_shift_and_flip_are_what_their_draws_say_pixel_by_pixel(shift: float, flip: bool, channels: int):
    images = np.random.default_rng(0).integers(1, 256, (20, 9, 9, channels)).astype(np.uint8)
    uniform = draws(3, np.arange(20, dtype=np.uint64), np.zeros(20), 11)
    views = render(images, uniform, shift, flip, 1.0, 0.0, CPU).permute(0, 2, 3, 1).numpy()
    expected = np.zeros_like(images)
    for image in range(20):
        (down, right), mirror = np.rint((uniform[image, :2] * 2 - 1) * shift * 9), uniform[image, 2]
        for row, column in np.ndindex(9, 9):
            source = int(row + down), int(8 - column - right if flip and mirror < 0.5 else column + right)
            if min(source) >= 0 and max(source) < 9:
                expected[image, row, column] = images[image, *source]
    assert np.array_equal(views, expected)


def test_erasing_hides_at_most_a_quarter_of_about_the_asked_share_of_images():
    images = np.full((400, 20, 20, 1), 255, np.uint8)
    views = render(images, draws(0, np.arange(400, dtype=np.uint64), np.zeros(400), 11), 0.0, False, 1.0, 0.5, CPU)
    hidden = (views == 0).float().mean((1, 2, 3))
    assert hidden.max() <= 0.25 + 1e-6
    assert 0.4 < (hidden > 0).float().mean() < 0.6


def test_color_is_torchvisions_color_jitter_where_nothing_is_clipped():
    images = np.random.default_rng(0).integers(80, 150, (20, 9, 9, 3)).astype(np.uint8)
    uniform = view_draws(3, np.arange(20, dtype=np.uint64), np.zeros(20))
    views = render(images, uniform, 0.0, False, 1.0, 0.0, CPU, color=0.4)
    factors = 0.6 + 0.8 * uniform[:, -3:]
    assert factors.min() < 0.7
    assert factors.max() > 1.3
    for view, image, (brightness, contrast, saturation) in zip(views, images, factors, strict=True):
        expected = torch.from_numpy(image).permute(2, 0, 1) / 255
        expected = functional.adjust_brightness(expected, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = functional.adjust_saturation(expected, saturation) * 255
        assert (view - expected).abs().max() < 0.6  # half is the rounding


def test_a_gray_image_changes_in_brightness_and_contrast_alone():
    gray = np.random.default_rng(0).integers(0, 256, (20, 9, 9, 1)).astype(np.uint8)
    uniform = view_draws(3, np.arange(20, dtype=np.uint64), np.zeros(20))
    views = render(gray, uniform, 0.0, False, 1.0, 0.0, CPU, color=0.9)
    brightness, contrast = (0.1 + 1.8 * uniform[:, -3:-1]).T[:, :, None, None, None]
    expected = brightness * (contrast * gray + (1 - contrast) * gray.mean((1, 2, 3), keepdims=True))
    assert np.array_equal(views.permute(0, 2, 3, 1).numpy(), expected.round().clip(0, 255))
    as_color = render(gray.repeat(3, axis=3), uniform, 0.0, False, 1.0, 0.0, CPU, color=0.9)
    assert (as_color - views.int()).abs().max() <= 1


@pytest.mark.parametrize(("draw", "quarters"), [(0.0, -1), (0.5, 0), (1.0, 1)])
def test_a_rotation_is_by_up_to_the_angle_either_way(draw: float, quarters: int):
    images, ids = some_images()
    uniform = view_draws(3, ids, np.zeros(12, np.int64))
    uniform[:, DRAWS] = draw
    views = render(images, uniform, 0.0, False, 1.0, 0.0, CPU, rotate_deg=90.0)
    assert np.array_equal(views.permute(0, 2, 3, 1).numpy(), np.rot90(images, quarters, axes=(1, 2)))


def test_views_without_color_and_rotation_are_those_of_the_first_release():
    """Stored soft labels and published figures belong to these pixels."""
    images, ids = some_images()
    uniform = view_draws(3, ids, np.arange(12) % 4)
    pixels = render(images, uniform, 0.2, True, 1.0, 0.5, CPU, rotate_deg=0.0, color=0.0)
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == (
        "02a378f3942db888f6a534fdbd7603c46029f5249c4ae3b7a1819d37d8c065c3"
    )


def test_draws_are_uniform_and_uncorrelated():
    values = view_draws(9, np.arange(20000, dtype=np.uint64), np.zeros(20000))
    assert abs(values.mean() - 0.5) < 0.005
    assert np.abs(np.corrcoef(values.T) - np.eye(values.shape[1])).max() < 0.03
    assert values.min() >= 0
    assert values.max() < 1
