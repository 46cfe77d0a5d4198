import numpy as np
import pytest
from PIL import Image

from reflux.components.core.data.shards import Shard
from reflux.components.modalities.image import sheet


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (100, 3)])
def test_each_class_has_a_row_of_its_own_images(tmp_path, side, channels):
    labels = np.array([0, 1, 1, -1])
    images = np.zeros((4, side, side, channels), np.uint8)
    images[labels == 1] = 200
    sheet.samples(Shard(images, labels, np.arange(4, dtype=np.uint64)), ["dark", "bright", "none"], tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int)
    dark, bright, none = np.split(pixels[6:, 150:], 3)
    assert ((dark == 0).sum(), (bright == 200).sum()) == (56 * 56, 2 * 56 * 56)
    assert (none == 255).all()


def test_many_classes_with_long_names_fit(tmp_path):
    shard = Shard(np.zeros((1, 8, 8, 1), np.uint8), np.array([0]), np.array([1], np.uint64))
    sheet.samples(shard, [f"a class of a very long name, {n}" for n in range(1000)], tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").height < 1300


def test_what_was_left_out_is_listed_up_to_a_length(tmp_path):
    heights = []
    for count in (0, 1, 5, 25, 10_000):
        sheet.quarantine([(f"ü/{n}.png", "is no image") for n in range(count)], tmp_path / "a.png")
        heights.append(Image.open(tmp_path / "a.png").height)
    assert heights == [40, 40, 120, 520, 540]
