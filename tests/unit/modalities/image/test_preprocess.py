import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from reflux.components.modalities.image.pixels import decode
from reflux.components.modalities.image.preprocess import fit, preprocess, resize


def images(size: int, channels: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (3, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize(("size", "to"), [(28, 16), (28, 20), (16, 28), (33, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_resize_that_models_are_trained_with_to_a_level(size, to, channels):
    stored = images(size, channels)
    pixels = torch.from_numpy(stored).permute(0, 3, 1, 2).float()
    expected = F.interpolate(pixels, (to, to), mode="bilinear", align_corners=False, antialias=to < size)

    resized = resize(stored, to)

    assert resized.shape == (3, channels, to, to)
    assert resized.dtype == np.uint8
    assert np.abs(resized - expected.numpy()).max() <= 1.01


def test_images_of_the_right_size_only_change_their_layout():
    stored = images(28, 3)
    resized = resize(stored, 28)
    assert resized.flags.c_contiguous
    assert np.array_equal(resized, stored.transpose(0, 3, 1, 2))


def test_no_images_give_no_pixels():
    assert resize(images(28, 1)[:0], 16).shape == (0, 1, 16, 16)


def test_fitting_repeats_gray_for_a_network_of_three_channels_and_resizes():
    fitted = fit(images(12, 1), 8, 3)
    assert fitted.shape == (3, 3, 8, 8)
    assert fitted.dtype == np.uint8
    assert (fitted[:, 0] == fitted[:, 1]).all()
    assert (fitted[:, 0] == fitted[:, 2]).all()


@pytest.mark.parametrize(("stored_channels", "channels"), [(1, 1), (1, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize("image_size", [8, 12])
def test_a_picture_is_what_ingest_stores_and_the_network_then_takes(stored_channels, channels, image_size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    stored = decode(file.getvalue(), stored_channels, 12, 50).pixels
    pixels = preprocess(picture, 12, stored_channels, image_size, channels)
    assert pixels.shape == (1, channels, image_size, image_size)
    assert np.array_equal(pixels, fit(stored[None], image_size, channels))
