import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reflux.components.core.data.draws import draws
from reflux.components.core.data.shards import Shard
from reflux.components.modalities.image.views.augment import render
from reflux.components.modalities.image.views.mixing import Mix, Mixing, Views, mixed_labels, own_ids, stored_augment

CPU = torch.device("cpu")
PLAIN = {"shift": 0.1, "flip": True, "crop_scale": 0.8, "erase": 0.2}
MIXINGS = [
    {"mixup": 1.0, "cutmix": 0.0, "mixup_alpha": 0.3, "cutmix_alpha": 1.0},
    {"mixup": 0.0, "cutmix": 1.0, "mixup_alpha": 1.0, "cutmix_alpha": 1.0},
    {"mixup": 0.4, "cutmix": 0.4, "mixup_alpha": 1.0, "cutmix_alpha": 0.5},
]


def some_images(count: int = 24, side: int = 16, channels: int = 3) -> Shard:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return Shard(pixels, rng.integers(0, 4, count), rng.integers(0, 2**63, count, np.uint64) * np.uint64(2))


def random_ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def test_the_pixels_of_the_recipe_that_ships_never_change():
    """Of shift and flip, whose arithmetic is exact everywhere; stored soft labels belong to these pixels."""
    images = some_images(40, 28, 1)
    augment = {"shift": 0.075, "flip": True, "crop_scale": 1.0, "erase": 0.0}
    off = {"mixup": 0.0, "cutmix": 0.0, "mixup_alpha": 1.0, "cutmix_alpha": 1.0}
    indices, views = np.arange(40), np.arange(40) % 4
    pixels = Views(images, 0, augment | off).pixels(indices, views, CPU)
    assert (
        hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        == "3e414f55d4b832bd365779f22a847306925f298a359e13c5e4e542fe7734e909"
    )
    assert torch.equal(pixels, render(images.images, draws(0, images.ids, views, 11), **augment, device=CPU))


def test_more_draws_move_none_of_those_before():
    ids, views = random_ids(20), np.arange(20)
    many = draws(3, ids, views, 30)
    assert np.array_equal(many[:, :11], draws(3, ids, views, 11))
    assert np.array_equal(many[:, 11:15], draws(3, ids, views, 4, first=11))


_ANOTHER_PROCESS = """
import json, sys
import numpy as np, torch
from reflux.components.modalities.image.views.mixing import Views
from reflux.components.core.data.shards import Shard
torch.set_num_threads(2)
folder = sys.argv[1]
images, ids = (np.load(f"{folder}/{name}.npy") for name in ("images", "ids"))
order = np.random.default_rng(1).permutation(len(ids))
for number, augment in enumerate(json.loads(sys.argv[2])):
    exact = Views(Shard(images, np.zeros(len(ids)), ids), 3, augment)
    made = [exact.pixels(part, part % 4, torch.device("cpu")) for part in (order[:1], order[1:6], order[6:])]
    np.save(f"{folder}/{number}.npy", torch.cat(made)[np.argsort(order)].numpy())
"""


def test_a_mixed_view_is_the_same_alone_and_in_another_process(tmp_path: Path):
    images, indices = some_images(), np.arange(24)
    np.save(tmp_path / "images.npy", images.images)
    np.save(tmp_path / "ids.npy", images.ids)
    augments = [PLAIN | mixing for mixing in MIXINGS]
    subprocess.run([sys.executable, "-c", _ANOTHER_PROCESS, str(tmp_path), json.dumps(augments)], check=True)
    for number, augment in enumerate(augments):
        exact = Views(images, 3, augment)
        together = exact.pixels(indices, indices % 4, CPU)
        alone = [exact.pixels(index, index % 4, CPU)[0] for index in np.split(indices, len(indices))]
        assert torch.equal(torch.stack(alone), together)
        assert np.array_equal(np.load(tmp_path / f"{number}.npy"), together.numpy())


def test_a_blend_is_the_weighted_mean_and_a_box_shows_the_partner():
    images = some_images(200, 16, 1)
    indices, views = np.arange(200), np.zeros(200, np.int64)
    plain = Views(images, 1, PLAIN).pixels(indices, views, CPU).float()
    for mixing in MIXINGS:
        exact = Views(images, 1, PLAIN | mixing)
        mix, pixels = exact.mix(indices, views), exact.pixels(indices, views, CPU).float()
        assert mix is not None
        for index in indices:
            own, other, share = plain[index], plain[mix.partners[index]], float(mix.share[index])
            top, left, bottom, right = mix.boxes[index]
            if not mix.mixed[index]:
                wanted = own
            elif bottom > top and right > left:
                wanted = own.clone()
                wanted[:, top:bottom, left:right] = other[:, top:bottom, left:right]
                assert share == 1 - (bottom - top) * (right - left) / 256
            else:
                wanted = share * own + (1 - share) * other
            assert (pixels[index] - wanted).abs().max() <= 0.5


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_shares_are_drawn_from_beta(alpha: float):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    ids = random_ids(20_000)
    mixing = Mixing(ids, 0, 16, 1.0, 0.0, alpha, 1.0)
    share = mixing(ids, np.zeros(len(ids), np.int64)).share
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_as_many_views_are_mixed_as_asked_for_and_cut_as_deep():
    ids, views = random_ids(20_000), np.arange(20_000) % 4
    mix = Mixing(ids, 0, 32, 0.3, 0.5, 1.0, 1.0)(ids, views)
    boxed = mix.boxes[:, 2] > mix.boxes[:, 0]
    assert mix.mixed.mean() == pytest.approx(0.8, abs=0.01)
    assert boxed.mean() == pytest.approx(0.5, abs=0.02)
    assert (mix.share[~mix.mixed] == 1).all()
    assert 0.55 < mix.share[boxed].mean() < 0.75  # what hangs over the border is not cut


@given(count=st.integers(2, 60), seed=st.integers(0, 99), added=st.integers(1, 5))
def test_an_added_image_becomes_the_partner_of_those_it_comes_before_on_the_ring(count: int, seed: int, added: int):
    ids, more = random_ids(count, seed), random_ids(added, seed + 1000)
    before, after = (Mixing(ring, 7, 8, 1.0, 0.0, 1.0, 1.0) for ring in (ids, np.concatenate([ids, more])))
    partners = [mixing.partner_ids(ids, 3) for mixing in (before, after)]
    assert np.isin(partners[0], ids).all()
    assert (partners[0] != ids[:, None]).all()
    changed = partners[0] != partners[1]
    assert np.isin(partners[1][changed], more).all()


def test_partners_are_spread_and_few_change():
    ids, more = random_ids(5000), random_ids(50, 1)
    before, after = (Mixing(ring, 7, 8, 1.0, 0.0, 1.0, 1.0) for ring in (ids, np.concatenate([ids, more])))
    partners = before.partner_ids(ids, 2)
    assert len(np.unique(partners)) > 2500
    assert 0.003 < (partners != after.partner_ids(ids, 2)).mean() < 0.03
    mix = before(ids, np.ones(5000, np.int64))
    assert np.array_equal(ids[mix.partners], partners[:, 1])


def test_where_nothing_is_mixed_each_image_is_its_own_partner():
    ids = random_ids(50)
    mixing = Mixing(ids, 7, 8, 0.5, 0.0, 1.0, 1.0)
    partners, mixed = mixing.partner_ids(ids, 1)[:, 0], mixing(ids, np.zeros(50, np.int64)).mixed
    assert 10 < mixed.sum() < 40
    assert np.array_equal(partners == ids, ~mixed)
    assert np.array_equal(own_ids(ids, 2), np.stack([ids, ids], 1))
    assert Views(some_images(), 0, PLAIN).mixing is None


def test_labels_are_mixed_where_both_are_known():
    labels = torch.tensor([0, 2, -1, 1])
    mix = Mix(
        np.array([True, True, False, True]), np.array([1, 2, 0, 0]), np.array([0.25, 0.5, 1.0, 0.75]), np.zeros((4, 4))
    )
    targets, known = mixed_labels(labels, np.arange(4), mix, 3)
    assert targets[0].tolist() == [0.25, 0, 0.75]
    assert targets[3].tolist() == [0.25, 0.75, 0]
    assert (known >= 0).tolist() == [True, False, False, True]
    whole, alone = mixed_labels(labels, np.arange(4), None, 3)
    assert (whole.tolist(), alone.tolist()) == ([0, 2, 0, 1], [0, 2, -1, 1])


def test_the_teacher_labels_mixed_views_unless_their_mixture_is_asked_for():
    mixed, plain = PLAIN | MIXINGS[0], PLAIN | MIXINGS[0] | {"mixup": 0.0}
    assert stored_augment(mixed, "teacher") == mixed
    assert stored_augment(mixed, "mixture") == stored_augment(plain, "teacher") == PLAIN
