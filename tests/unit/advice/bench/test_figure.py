import numpy as np
from PIL import Image, ImageColor

from reflux.components.advice.bench.figure import _COLORS, draw
from tests.unit.advice.bench.test_report import report


def test_each_file_is_drawn_with_its_interval(tmp_path):
    draw(report(), tmp_path / "bench.png")
    with Image.open(tmp_path / "bench.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    halves = np.array_split(pixels[: int(0.8 * len(pixels))], 2, axis=1)  # without the legend
    for half, spread in zip(halves, (0, 1), strict=True):
        places = np.argwhere(np.abs(half - ImageColor.getrgb(_COLORS[1])).max(axis=2) < 40)
        height, width = np.ptp(places, axis=0)
        assert (width > 2 * height) == bool(spread), "the interval is of the ratio: up and down, then left and right"
