"""Read image files: what a picture becomes is decided in :mod:`reflux.components.modalities.image.preprocess`.

Of an animation or of pages the first counts. The format is read from the bytes, never from the file's name.
"""

import hashlib
import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reflux.components.modalities.image.preprocess import square, upright

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
# 256 bits: at Pillow's usual 64, different clothes of 28x28 pixels share a hash by the hundred.
PHASH_SIDE = 16
# The brands of what ISO's container holds (ISO/IEC 14496-12), of which something can be said.
_BRANDS = {"HEIC": (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"), "AVIF": (b"avif", b"avis")}

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

    image, mode, kind = open_image(data, max_megapixels)
    width, height = image.size
    rgb = image.convert("RGB")
    bits = imagehash.phash(image.convert("L"), hash_size=PHASH_SIDE, highfreq_factor=2)
    return Decoded(
        pixels=square(image, image_size, channels),
        width=width,
        height=height,
        mode=mode,
        format=kind,
        sha256=hashlib.sha256(f"{width}x{height}\0".encode() + rgb.tobytes()).hexdigest(),
        phash=np.packbits(bits.hash).tobytes().hex(),
        pixel_std=_std(image),
    )


def fitted(data: bytes, channels: int, image_size: int) -> NDArray[np.uint8]:
    """The pixels of :func:`decode` alone, for an image that it has accepted before.

    Raises:
        UnreadableImage: the bytes are no readable image of a known format.
    """
    image, _, _ = open_image(data, math.inf)
    return square(image, image_size, channels)


def open_image(data: bytes, max_megapixels: float) -> tuple[Image.Image, str, str]:
    """Open an image file, upright and 8-bit L or RGB.

    Args:
        data: the file's bytes.
        max_megapixels: larger images are refused on their header alone, before they can fill the memory.

    Returns:
        The image, and the mode and the format that its file has.

    Raises:
        UnreadableImage: the bytes are no readable image of a known format, or it is too large.
    """
    if not data:
        raise UnreadableImage("is empty (zero bytes)")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        mode, kind = image.mode, image.format or "?"
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            size = f"{image.width} x {image.height} pixels"
            raise UnreadableImage(f"has {size}, more than the {max_megapixels:g} megapixels of ingest.max_megapixels")
        image.load()
        _refuse_depth(image)
        image = upright(image)
    except UnidentifiedImageError:
        raise UnreadableImage(_instead(data)) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UnreadableImage(f"has more than the {limit:.0f} megapixels that Pillow opens") from None
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken byte leads them to
        raise UnreadableImage(f"is truncated or damaged ({_one_line(error)})") from None
    # JPEGs of some phones carry a second picture, which makes Pillow call them MPO.
    return image, mode, "JPEG" if kind == "MPO" else kind


def _refuse_depth(image: Image.Image) -> None:
    """Refuse pixels of which nobody can tell what is white."""
    values = np.asarray(image) if image.mode == "I" else np.zeros(1, np.int64)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        kind = "floating-point pixels" if image.mode == "F" else "pixels of 32 bits"
        raise UnreadableImage(f"has {kind}, of which nobody can tell what is white: save it with 8 or 16 bits")


def _instead(data: bytes) -> str:
    """What a file is that is no readable image, as the end of a sentence."""
    for kind, brands in _BRANDS.items():
        if data[4:8] == b"ftyp" and data[8:12] in brands:
            return f"is in the format {kind}: convert it, as with `magick mogrify -format png *.{kind.lower()}`"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "is a TIFF image of a kind that is not read: save it with 8 bits a channel, or 16 in gray"
    head = data[:512]
    if head.isascii() and not head.translate(None, bytes(range(32, 127)) + b"\t\n\r\f"):
        return "is text and no image"
    return "is not a PNG, JPEG, WebP, BMP, TIFF or GIF image"


def _std(image: Image.Image) -> float:
    # From the histogram: no float copy of a large image, and exactly zero for one color.
    shares = np.asarray(image.histogram(), dtype=np.float64).reshape(-1, 256) / (image.width * image.height)
    levels = np.arange(256)
    means = shares @ levels
    variances = (shares * (levels - means[:, None]) ** 2).sum(axis=1)
    return round(float(np.sqrt(variances.max())), 3)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
