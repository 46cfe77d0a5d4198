import numpy as np
import pytest
import torch
from torch.nn import functional as F

from components.core.images.pixels import resize_pixels


def images(size: int, channels: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (3, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize(("size", "to"), [(28, 16), (28, 20), (16, 28), (33, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_resize_that_models_are_trained_with_to_a_level(size, to, channels):
    stored = images(size, channels)
    pixels = torch.from_numpy(stored).permute(0, 3, 1, 2).float()
    expected = F.interpolate(pixels, (to, to), mode="bilinear", align_corners=False, antialias=to < size)

    resized = resize_pixels(stored, to)

    assert resized.shape == (3, channels, to, to)
    assert resized.dtype == np.uint8
    assert np.abs(resized - expected.numpy()).max() <= 1.01


def test_images_of_the_right_size_only_change_their_layout():
    stored = images(28, 3)
    resized = resize_pixels(stored, 28)
    assert resized.flags.c_contiguous
    assert np.array_equal(resized, stored.transpose(0, 3, 1, 2))


def test_no_images_give_no_pixels():
    assert resize_pixels(images(28, 1)[:0], 16).shape == (0, 1, 16, 16)
