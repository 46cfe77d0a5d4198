"""Decode image files to pixels, in one way for training and for prediction.

Handled on purpose: EXIF rotation is applied; transparency (RGBA, LA, palette, PNG color key) is laid on white; 16-bit
gray is scaled to 8 bits; CMYK is converted without its color profile, as torchvision does; of an animation the first
frame counts. The format is read from the bytes, never from the file's name.
"""

import hashlib
import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib")
# 256 bits: at Pillow's usual 64, different clothes of 28x28 pixels share a hash by the hundred.
PHASH_SIDE = 16
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")

# Our own limit is checked on the header before a pixel is decoded; Pillow's warning would only repeat it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Broken metadata around whole pixels is common, and no concern of the user.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImage(Exception):
    """An image that can't be used, with the reason as the end of a sentence: "<path> <reason>"."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded image.

    Attributes:
        pixels: uint8 [H, W, C], resized to a square.
        width: pixels across, after EXIF rotation.
        height: pixels down, after EXIF rotation.
        mode: Pillow's name of the pixel format in the file.
        format: the file's format, one of ``FORMATS``.
        sha256: of size and full-size RGB pixels; the same for the same picture in another lossless file.
        phash: perceptual hash of 256 bits, as hex (DCT hash, Zauner 2010).
        pixel_std: the largest channel's standard deviation, 0..255; 0 for an image of one color.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    mode: str
    format: str
    sha256: str
    phash: str
    pixel_std: float


def decode(data: bytes, channels: int, image_size: int, max_megapixels: float) -> Decoded:
    """Decode an image file.

    The shorter side is resized to ``image_size`` and the longer one cropped around the center.

    Args:
        data: the file's bytes.
        channels: 1 for gray (ITU-R 601 luma), 3 for RGB.
        image_size: side of the returned square, in pixels.
        max_megapixels: larger images are refused on their header alone, before they can fill the memory.

    Raises:
        UnreadableImage: the bytes are no readable image of a known format, or it is too large.
    """
    import imagehash

    upright, mode, kind = _open(data, max_megapixels)
    width, height = upright.size
    rgb = upright.convert("RGB")
    gray = upright.convert("L")
    bits = imagehash.phash(gray, hash_size=PHASH_SIDE, highfreq_factor=2)
    return Decoded(
        pixels=_fit(gray if channels == 1 else rgb, image_size),
        width=width,
        height=height,
        mode=mode,
        format=kind,
        sha256=hashlib.sha256(f"{width}x{height}\0".encode() + rgb.tobytes()).hexdigest(),
        phash=np.packbits(bits.hash).tobytes().hex(),
        pixel_std=_std(upright),
    )


def fitted(data: bytes, channels: int, image_size: int) -> NDArray[np.uint8]:
    """The pixels of :func:`decode` alone, for an image that it has accepted before.

    Raises:
        UnreadableImage: the bytes are no readable image of a known format.
    """
    upright, _, _ = _open(data, math.inf)
    return _fit(upright.convert("L" if channels == 1 else "RGB"), image_size)


def resize_pixels(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize stored images [N, H, W, C] to [N, C, size, size], in one way for evaluation and prediction.

    Bilinear, antialiased when it shrinks: what ``PixelModel`` does in floating point, rounded to whole levels.
    """
    if images.shape[1:3] != (size, size):
        resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
        for row, image in enumerate(images):
            for channel in range(images.shape[3]):
                plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
                resized[row, ..., channel] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        images = resized
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _open(data: bytes, max_megapixels: float) -> tuple[Image.Image, str, str]:
    """Read the header, refuse what is too large, then read the pixels: upright, 8-bit, L or RGB."""
    if not data:
        raise UnreadableImage("is empty (zero bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        mode, kind = image.mode, image.format or "?"
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            size = f"{image.width} x {image.height} pixels"
            raise UnreadableImage(f"has {size}, more than the {max_megapixels:g} megapixels of ingest.max_megapixels")
        image.load()
        upright = _flatten(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise UnreadableImage("is not a PNG, JPEG, WebP or BMP image") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UnreadableImage(f"has more than the {limit:.0f} megapixels that Pillow opens") from None
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken byte leads them to
        raise UnreadableImage(f"is truncated or damaged ({_one_line(error)})") from None
    # JPEGs of some phones carry a second picture, which makes Pillow call them MPO.
    return upright, mode, "JPEG" if kind == "MPO" else kind


def _flatten(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit L or RGB, on white where it is transparent."""
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


def _fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the shorter side and crop the longer one: uint8 [size, size, C]."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.uint8).reshape(size, size, -1)


def _std(image: Image.Image) -> float:
    # From the histogram: no float copy of a large image, and exactly zero for one color.
    shares = np.asarray(image.histogram(), dtype=np.float64).reshape(-1, 256) / (image.width * image.height)
    levels = np.arange(256)
    means = shares @ levels
    variances = (shares * (levels - means[:, None]) ** 2).sum(axis=1)
    return round(float(np.sqrt(variances.max())), 3)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
