import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from reflux.components.modalities.image.pixels import Decoded, UnreadableImage, decode

SIDE = 6
gray = hnp.arrays(np.uint8, (SIDE, SIDE))
color = hnp.arrays(np.uint8, (SIDE, SIDE, 3))
alpha = hnp.arrays(np.uint8, (SIDE, SIDE, 4))
deep = hnp.arrays(np.uint16, (SIDE, SIDE))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def read(data: bytes, channels: int = 3, size: int = SIDE) -> Decoded:
    return decode(data, channels, size, max_megapixels=50)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG that Pillow itself does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def sixteen_bit(values: np.ndarray, color_type: int, *extra: bytes) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, color_type, rows, *extra)


def close(pixels: np.ndarray, expected: np.ndarray, within: float = 1.0) -> bool:
    return bool(np.all(np.abs(pixels.astype(float) - expected) <= within))


@given(gray)
def test_gray_is_kept_exactly(values: np.ndarray) -> None:
    for kind in ("PNG", "BMP"):
        data = encode(Image.fromarray(values), kind)
        assert np.array_equal(read(data, channels=1).pixels[..., 0], values)
        assert np.array_equal(read(data).pixels, np.repeat(values[..., None], 3, axis=2))


@given(color)
def test_color_is_kept_exactly(values: np.ndarray) -> None:
    for kind, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert np.array_equal(read(encode(Image.fromarray(values), kind, **options)).pixels, values)


@given(color)
def test_color_becomes_luma(values: np.ndarray) -> None:
    pixels = read(encode(Image.fromarray(values)), channels=1).pixels[..., 0]
    assert close(pixels, values @ [0.299, 0.587, 0.114])


@given(alpha)
def test_transparent_pixels_lie_on_white(values: np.ndarray) -> None:
    opacity = values[..., 3:] / 255
    pixels = read(encode(Image.fromarray(values))).pixels
    assert close(pixels, values[..., :3] * opacity + 255 * (1 - opacity))


@given(hnp.arrays(np.uint8, (SIDE, SIDE, 2)))
def test_gray_with_alpha_is_put_on_white(values: np.ndarray) -> None:
    image = Image.merge("LA", [Image.fromarray(values[..., 0].copy()), Image.fromarray(values[..., 1].copy())])
    opacity = values[..., 1] / 255
    assert close(read(encode(image), channels=1).pixels[..., 0], values[..., 0] * opacity + 255 * (1 - opacity))


@given(hnp.arrays(np.uint8, (SIDE, SIDE), elements=st.integers(0, 3)), hnp.arrays(np.uint8, (4, 3)))
def test_palette_gives_its_colors(indices: np.ndarray, palette: np.ndarray) -> None:
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    data = encode(image)
    assert Image.open(io.BytesIO(data)).mode == "P"
    assert np.array_equal(read(data).pixels, palette[indices])


def test_transparent_palette_entry_and_color_key_are_white() -> None:
    indices = np.zeros((SIDE, SIDE), np.uint8)
    indices[0] = 1
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    pixels = read(encode(image, transparency=1)).pixels
    assert (pixels[0] == 255).all()
    assert (pixels[1:] == [10, 20, 30]).all()
    keyed = np.full((SIDE, SIDE, 3), 7, np.uint8)
    keyed[0] = [1, 2, 3]
    pixels = read(encode(Image.fromarray(keyed), transparency=(1, 2, 3))).pixels
    assert (pixels[0] == 255).all()
    assert (pixels[1:] == 7).all()


@given(hnp.arrays(np.bool_, (SIDE, SIDE)))
def test_one_bit_is_black_and_white(values: np.ndarray) -> None:
    data = encode(Image.fromarray(values))
    assert Image.open(io.BytesIO(data)).mode == "1"
    assert np.array_equal(read(data, channels=1).pixels[..., 0], np.where(values, 255, 0))


@given(deep)
def test_sixteen_bit_gray_is_scaled_not_cut(values: np.ndarray) -> None:
    decoded = read(sixteen_bit(values, 0), channels=1)
    assert decoded.mode == "I;16"
    assert close(decoded.pixels[..., 0], values / 257, within=0.5 + 1e-9)


def test_sixteen_bit_gray_color_key_is_white() -> None:
    values = np.full((SIDE, SIDE), 300, np.uint16)
    values[0] = 299
    pixels = read(sixteen_bit(values, 0, chunk(b"tRNS", struct.pack(">H", 299))), channels=1).pixels
    assert (pixels[0] == 255).all()
    assert (pixels[1:] == 1).all()


@given(hnp.arrays(np.uint16, (SIDE, SIDE, 4)))
def test_sixteen_bit_color_is_scaled(values: np.ndarray) -> None:
    opacity = values[..., 3:] / 65535
    assert close(read(sixteen_bit(values[..., :3].copy(), 2)).pixels, values[..., :3] / 257)
    expected = values[..., :3] / 257 * opacity + 255 * (1 - opacity)
    assert close(read(sixteen_bit(values, 6)).pixels, expected, within=3)


@given(st.tuples(*[st.integers(0, 255)] * 4))
def test_cmyk_jpeg_is_converted(ink: tuple[int, int, int, int]) -> None:
    decoded = read(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100))
    expected = [(255 - value) * (255 - ink[3]) / 255 for value in ink[:3]]
    assert decoded.mode == "CMYK"
    assert close(decoded.pixels, np.array(expected), within=4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[8:, 16:] = [250, 0, 0], [0, 0, 250]
    # How a camera that was held so stores the upright scene (EXIF 2.3, tag 0x0112).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    decoded = read(data, size=16)
    assert (decoded.width, decoded.height) == (32, 16)
    assert close(decoded.pixels, upright[:, 8:24], within=12)


def test_wide_image_is_cropped_around_its_centre() -> None:
    values = np.zeros((20, 60), np.uint8)
    values[:, 20:40] = 200
    decoded = read(encode(Image.fromarray(values)), channels=1, size=10)
    assert (decoded.width, decoded.height) == (60, 20)
    assert decoded.pixels.shape == (10, 10, 1)
    assert (decoded.pixels[:, 1:-1] > 190).all()


@given(color, st.sampled_from([1, 3]), st.integers(1, 9))
def test_content_hash_depends_on_the_picture_alone(values: np.ndarray, channels: int, size: int) -> None:
    image = Image.fromarray(values)
    first = read(encode(image))
    others = [
        decode(encode(image), channels, size, 50),
        read(encode(image, "BMP")),
        read(encode(image, "WEBP", lossless=True, exact=True)),
    ]
    assert {o.sha256 for o in others} == {first.sha256}
    assert {o.phash for o in others} == {first.phash}
    changed = values.copy()
    changed[0, 0, 0] ^= 1
    assert read(encode(Image.fromarray(changed))).sha256 != first.sha256


def test_content_hash_knows_the_size() -> None:
    tall, wide = (Image.new("L", size, 9) for size in ((4, 9), (9, 4)))
    assert read(encode(tall)).sha256 != read(encode(wide)).sha256


@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 40))
def test_one_color_has_no_deviation(rgb: tuple[int, int, int], side: int) -> None:
    image = Image.new("RGB", (side, side), rgb)
    assert read(encode(image)).pixel_std == 0
    image.putpixel((0, 0), (rgb[0] ^ 128, rgb[1], rgb[2]))
    assert side == 1 or read(encode(image)).pixel_std > 0


@given(color)
def test_deviation_is_the_largest_channels(values: np.ndarray) -> None:
    assert read(encode(Image.fromarray(values))).pixel_std == pytest.approx(values.std(axis=(0, 1)).max(), abs=1e-3)


def noise(mode: str = "RGB", side: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_file_is_refused(kind: str, kept: float) -> None:
    data = encode(noise(), kind)
    assert read(data).format == kind
    with pytest.raises(UnreadableImage, match=r"truncated or damaged|is not a PNG"):
        read(data[: int(len(data) * kept)])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "reason"), [(10_001, "more than the 50 mega"), (60_000, "Pillow opens")])
def test_bomb_is_refused_on_its_header(side: int, reason: str) -> None:
    # The pixels it promises are not there: only a reader that trusts the header first says "too large".
    with pytest.raises(UnreadableImage, match=reason):
        read(png(side, side, 8, 0, b""))


def test_limit_is_the_callers() -> None:
    data = encode(Image.new("L", (100, 100)))
    assert decode(data, 1, 8, max_megapixels=0.01).width == 100
    with pytest.raises(UnreadableImage, match=r"100 x 100 pixels, more than the 0\.009 megapixels"):
        decode(data, 1, 8, max_megapixels=0.009)


@settings(max_examples=200)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), st.data())
def test_damage_never_ends_in_another_error(kind: str, draw: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encode(noise(side=16), kind, **({} if kind == "BMP" else {"exif": exif})))
    for place in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6)):
        data[place] = draw.draw(st.integers(0, 255))
    try:
        assert read(bytes(data)).pixels.shape == (SIDE, SIDE, 3)
    except UnreadableImage as error:
        assert "\n" not in str(error)


@given(color)
def test_tiff_and_the_first_frame_of_gif_and_tiff_are_read(values: np.ndarray) -> None:
    first, second = Image.fromarray(values), Image.fromarray(255 - values)
    for kind, options in (("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("GIF", {})):
        decoded = read(encode(first, kind, save_all=True, append_images=[second], **options))
        assert decoded.format == kind
        assert np.array_equal(decoded.pixels, values)


@given(deep)
def test_sixteen_bit_tiff_is_scaled(values: np.ndarray) -> None:
    assert close(read(encode(Image.fromarray(values), "TIFF"), channels=1).pixels[..., 0], values / 257, 0.5 + 1e-9)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty (zero bytes)"),
        (b"path,label\na.png,cat\n", "is text and no image"),
        (encode(noise(), "PPM"), "is not a PNG, JPEG, WebP, BMP, TIFF or GIF image"),
        (b"\0\0\0\x18ftypheic", "is in the format HEIC: convert it, as with `magick mogrify -format png *.heic`"),
        (b"\0\0\0\x18ftypavif", "is in the format AVIF: convert it, as with `magick mogrify -format png *.avif`"),
        (b"II*\0damaged", "is a TIFF image of a kind that is not read"),
        (b"%PDF-1.7\xff", "is not a PNG, JPEG, WebP, BMP, TIFF or GIF image"),
        (encode(Image.new("F", (8, 8)), "TIFF"), "has floating-point pixels"),
        (encode(Image.new("I", (8, 8), 65_536), "TIFF"), "has pixels of 32 bits"),
        (encode(Image.new("I", (8, 8), -1), "TIFF"), "has pixels of 32 bits"),
    ],
)
def test_what_is_no_readable_image_is_told_by_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=re.escape(reason)):
        read(data)
