import io

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import gaussian_filter

from reflux.components.modalities.image import stress

IDS = np.array([3, 2**63, 7, 8], np.uint64)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 30, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_corruption_gives_other_images_of_the_same_form(images, channels):
    images = images[..., :channels]
    before = images.copy()
    corrupted = dict(stress.corrupted(images, IDS))
    assert tuple(corrupted) == stress.KINDS
    for changed in corrupted.values():
        assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
        assert (changed != images).any(axis=(1, 2, 3)).all()
    assert (images == before).all()


def test_an_image_is_corrupted_alike_whatever_is_next_to_it(images):
    for (_, all_of_them), (_, some) in zip(
        stress.corrupted(images, IDS), stress.corrupted(images[[2, 0]], IDS[[2, 0]]), strict=True
    ):
        assert np.array_equal(all_of_them[[2, 0]], some)


def test_noise_has_the_deviation_it_is_told_and_is_each_image_s_own():
    gray = np.full((4, 100, 100, 1), 128, np.uint8)
    change = stress.noise(gray, IDS, 0.08).astype(float) - 128
    assert change.mean() == pytest.approx(0, abs=0.5)
    assert change.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert np.abs(np.corrcoef(change.reshape(4, -1)) - np.eye(4)).max() < 0.05


def test_blur_is_each_channel_s_own(images):
    for sigma in (0.7, 3.0):
        blurred = stress.blur(images, sigma)
        for image, changed in zip(images, blurred, strict=True):
            for channel in range(3):
                plane = gaussian_filter(image[..., channel].astype(float), sigma, mode="nearest")
                assert np.abs(changed[..., channel] - plane).max() < 0.51
    assert (stress.blur(np.full((1, 9, 9, 1), 77, np.uint8), 3.0) == 77).all()


def test_brightness_is_hsv_s(images):
    images[0, 0, 0] = 0
    hsv = rgb_to_hsv(images / 255)
    hsv[..., 2] = np.minimum(hsv[..., 2] + 0.15, 1)
    assert np.abs(stress.brightness(images, 0.15) - 255 * hsv_to_rgb(hsv)).max() < 0.51
    gray = np.array([0, 100, 230], np.uint8).reshape(1, 1, 3, 1)
    assert stress.brightness(gray, 0.2).ravel().tolist() == [51, 151, 255]


def test_jpeg_is_what_a_file_of_that_quality_holds(images):
    file = io.BytesIO()
    Image.fromarray(images[1]).save(file, "JPEG", quality=58)
    assert np.array_equal(stress.jpeg(images, 58)[1], np.asarray(Image.open(file)))
    assert (
        np.abs(stress.jpeg(images, 95) - images.astype(int)).mean()
        < np.abs(stress.jpeg(images, 15) - images.astype(int)).mean()
    )


@pytest.mark.parametrize(("side", "like"), [(1, 32), (28, 32), (40, 32), (48, 64), (96, 64), (128, 224), (1024, 224)])
def test_levels_are_those_for_the_nearest_size(side, like):
    assert stress.levels_for(side) == stress.levels_for(like)
