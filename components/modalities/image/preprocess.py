"""From a picture to the pixels that a network takes, with NumPy and Pillow alone.

The model card holds this file, so that anyone who has the card can give a model the pixels that the pipeline gave it.
EXIF rotation is applied; transparency (RGBA, LA, palette, PNG color key) is laid on white; 16-bit gray is scaled to 8
bits; CMYK is converted without its color profile, as torchvision does.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow


def preprocess(
    image: Image.Image, stored_size: int, stored_channels: int, image_size: int, channels: int
) -> NDArray[np.uint8]:
    """A picture of any size and mode as a network takes it: uint8 [1, channels, image_size, image_size].

    It becomes the square of ``stored_size`` that the network's training images were kept as, then the network's input.
    """
    return fit(square(upright(image), stored_size, stored_channels)[None], image_size, channels)


def upright(image: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit L or RGB, turned by its EXIF, on white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT:
        wide = np.asarray(image).astype(np.int64)
        narrow = np.clip((wide * 255 + 32767) // 65535, 0, 255).astype(np.uint8)
        if isinstance(key := image.info.get("transparency"), int):
            narrow[wide == key] = 255
        return Image.fromarray(narrow)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("L") if image.mode in ("1", "L") else image.convert("RGB")


def square(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """Resize the shorter side and crop the longer one around the center: uint8 [size, size, channels]."""
    resized = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8).reshape(size, size, channels)


def fit(images: NDArray[np.uint8], image_size: int, channels: int) -> NDArray[np.uint8]:
    """Stored images [N, H, W, C] as a network takes them: [N, channels, image_size, image_size].

    Gray is repeated for a network of three channels, and color turned gray for a network of one.
    """
    pixels = resize(images, image_size)
    stored = pixels.shape[1]
    if stored == 3 and channels == 1:
        return np.tensordot(np.array(_LUMA), pixels, axes=(0, 1)).round().astype(np.uint8)[:, None]
    return np.repeat(pixels, channels // stored, axis=1)


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize stored images [N, H, W, C] to [N, C, size, size].

    Bilinear, antialiased when it shrinks: what training does in floating point, rounded to whole levels.
    """
    if images.shape[1:3] != (size, size):
        resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
        for row, image in enumerate(images):
            for channel in range(images.shape[3]):
                plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
                resized[row, ..., channel] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        images = resized
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
