"""Any bytes are an image or not, and never more pixels than allowed."""

import io

import numpy as np
import pytest
from PIL import Image

from reflux.components.modalities.image.pixels import FORMATS, UnreadableImage, decode
from tests.fuzzing import at_most, damaged, examples, search

pytestmark = pytest.mark.timeout(600)

MEGAPIXELS = 0.5


def file(kind: str, mode: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 17, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
WHOLE = [
    *(file(kind, "RGB") for kind in FORMATS),
    *(file("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
    file("JPEG", "CMYK"),
    file("JPEG", "L", exif=EXIF, progressive=True),
    *(file("TIFF", "L", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
    file("GIF", "P", save_all=True, append_images=[Image.new("P", (17, 24))] * 2),
    b"\0\0\0\x18ftypheic",
]
WORDS = [b"IHDR", b"\xff\xd8\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"RIFF", b"II*\0", b"GIF89a"]


def check(data: bytes) -> None:
    try:
        image = decode(data, 3, 8, MEGAPIXELS)
    except UnreadableImage as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        assert image.pixels.shape == (8, 8, 3)
        assert 0 < image.width * image.height <= MEGAPIXELS * 1e6


@examples
def test_any_bytes_are_an_image_or_have_a_reason_why_not(examples: int):
    with at_most(200):
        search(check, examples, damaged(WHOLE, WORDS))
