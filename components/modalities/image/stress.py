"""Test images as worse cameras would take them: common corruptions (Hendrycks and Dietterich 2019), severity 3 of 5.

As there, images are corrupted at the size that the network takes, and how strongly depends on it: by the authors' code
(github.com/hendrycks/robustness, ImageNet-C) for images of 32 pixels (``create_c/make_cifar_c.py``), of 64
(``create_c/make_tinyimagenet_c.py``) and of 224 (``imagenet_c/imagenet_c/corruptions.py``). All models of one size see
the same corrupted images, whatever their seed.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from reflux.components.core.data.draws import Uint64s, draws
from reflux.components.core.data.shards import Pixels

KINDS = ("noise", "blur", "brightness", "jpeg")
_SEED = 0


@dataclass(frozen=True)
class Levels:
    """How strong each corruption is.

    Attributes:
        noise: standard deviation of the Gaussian, as a share of the pixels' range.
        blur: standard deviation of the Gaussian, in pixels.
        brightness: what is added to the value of HSV, as a share of its range.
        jpeg: quality, 1 to 95.
    """

    noise: float
    blur: float
    brightness: float
    jpeg: int


_LEVELS = {32: Levels(0.08, 0.7, 0.15, 58), 64: Levels(0.12, 1.0, 0.3, 50), 224: Levels(0.18, 3.0, 0.3, 15)}


def levels_for(side: int) -> Levels:
    """The authors' levels for images of ``side`` pixels, or of the nearest size (as a ratio) that they have."""
    return _LEVELS[min(_LEVELS, key=lambda known: abs(math.log(known / side)))]


def corrupted(images: Pixels, ids: Uint64s) -> Iterator[tuple[str, Pixels]]:
    """The same images in each corruption of ``KINDS``, one after the other.

    Args:
        images: uint8 [N, H, W, C], C 1 or 3.
        ids: of the images, uint64 [N]; they decide the noise.
    """
    levels = levels_for(images.shape[1])
    yield "noise", noise(images, ids, levels.noise)
    yield "blur", blur(images, levels.blur)
    yield "brightness", brightness(images, levels.brightness)
    yield "jpeg", jpeg(images, levels.jpeg)


def noise(images: Pixels, ids: Uint64s, deviation: float) -> Pixels:
    """Add Gaussian noise, which depends on an image's id alone."""
    uniform = draws(_SEED, ids, np.zeros(len(ids), np.int64), math.prod(images.shape[1:]))
    return _pixels(images + 255 * deviation * ndtri(uniform).reshape(images.shape))


def blur(images: Pixels, sigma: float) -> Pixels:
    """Blur by a Gaussian of ``sigma`` pixels, cut off after four sigma; pixels at the border are repeated beyond it."""
    return _pixels(gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest"))


def brightness(images: Pixels, amount: float) -> Pixels:
    """Raise HSV's value by ``amount`` of its range; hue and saturation stay."""
    value = images.max(axis=3, keepdims=True).astype(np.float32)
    raised = np.minimum(value + 255 * amount, 255)
    # With hue and saturation kept the channels grow by one factor; black has neither and becomes gray.
    return _pixels(np.where(value > 0, images * (raised / np.maximum(value, 1)), raised))


def jpeg(images: Pixels, quality: int) -> Pixels:
    """Compress each image as JPEG and read it again."""
    compressed = np.empty_like(images)
    for row, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        compressed[row] = np.asarray(Image.open(file)).reshape(image.shape)
    return compressed


def _pixels(values: npt.NDArray[np.floating]) -> Pixels:
    return np.rint(values.clip(0, 255)).astype(np.uint8)
