import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reflux.components.advice.plan import profile as profiling
from reflux.components.advice.plan.profile import Look, Profile, look_at
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from reflux.components.stages.ingest.source import open_source
from tests.datasets import CLASSES, class_folders, copy_into_splits, noise, run_ingest, save

SHARES = {"val": 0.2, "test": 0.2}


def looked(folder: Path, slices: tuple[str, ...] = (), group: str | None = None) -> tuple[Profile, Look]:
    source = open_source(folder, slices, group)
    place = len(slices) if group else None
    return look_at(source, folder, **SHARES, max_megapixels=50, max_quarantined=0.02, processes=2, group=place)


def split_by_ingest(folder: Path, out: Path, **more) -> dict[str, list[int]]:
    run_ingest(folder, out, **SHARES, **more)
    labels = {split: open_shard(out / "shards" / split).labels for split in ("train", "val", "test")}
    return {split: np.bincount(each, minlength=3).tolist() for split, each in labels.items()}


def test_a_small_dataset_is_split_as_ingest_will(tmp_path):
    folder = class_folders(tmp_path / "pets", 90)
    profile, look = looked(folder)
    assert profile.exact
    assert profile.classes == CLASSES
    assert {split: list(counts) for split, counts in profile.labeled.items()} == split_by_ingest(folder, tmp_path / "o")
    assert profile.unlabeled == 4
    assert profile.counts["train"] == sum(profile.labeled["train"])
    for split in ("train", "val", "test"):
        ids = open_shard(tmp_path / "o" / "shards" / split).ids
        assert sorted(look.ids[look.splits == split].tolist()) == ids.tolist()


def test_the_sources_own_splits_are_counted_and_not_drawn(tmp_path):
    folder = class_folders(tmp_path / "pets", 48)
    copy_into_splits(folder)
    profile, _ = looked(folder)
    assert {split: sum(counts) for split, counts in profile.labeled.items()} == {"train": 24, "val": 12, "test": 12}
    assert profile.exact


def test_groups_stay_together_as_in_ingest(tmp_path):
    rows = []
    for seed in range(80):
        save(noise(seed), tmp_path / "pets" / f"{seed}.png")
        rows.append(f"{seed}.png,{CLASSES[seed % 3]},{seed // 4}")
    (tmp_path / "pets" / "labels.csv").write_text("\n".join(["path,label,dog", *rows]))
    profile, _ = looked(tmp_path / "pets", group="dog")
    counts = split_by_ingest(tmp_path / "pets", tmp_path / "o", group="dog")
    assert {split: list(each) for split, each in profile.labeled.items()} == counts


def test_only_a_part_of_many_images_is_decoded_and_the_rest_is_counted(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "pets", 300)
    whole, _ = looked(folder)
    monkeypatch.setitem(profiling._QUOTA, None, 50)
    part, look = looked(folder)
    assert not part.exact
    assert len(look.labels) == 54
    assert sum(part.counts.values()) == 304
    assert abs(part.counts["train"] - whole.counts["train"]) < 40
    monkeypatch.setattr(profiling, "_MEGAPIXELS", 20 * 144 / 1e6)
    assert len(looked(folder)[1].labels) == 20


@pytest.mark.parametrize(("mode", "color"), [("L", False), ("RGB", True)])
def test_color_is_what_pixels_have_and_not_how_they_are_stored(tmp_path, mode, color):
    for seed in range(12):
        save(noise(seed, 20).convert(mode).convert("RGB"), tmp_path / "pets" / CLASSES[seed % 2] / f"{seed}.png")
    profile, look = looked(tmp_path / "pets")
    assert profile.color is color
    assert profile.sides == (20, 20, 20)
    assert look.pixels.shape == (12, 20, 20, 3)


def test_sizes_transparency_repeats_and_imbalance_are_seen(tmp_path):
    folder = tmp_path / "pets"
    for seed in range(40):
        kind, side = CLASSES[seed % 4 == 0], 10 if seed < 18 else 300
        image = noise(seed, side).resize((side, side + 7))
        save(image.convert("RGBA") if seed < 10 else image, folder / "train" / kind / f"{seed}.png")
    shutil.copy(folder / "train" / "cat" / "1.png", folder / "train" / "cat" / "again.png")
    profile, _ = looked(folder)
    assert profile.sides == (10, 300, 300)
    assert profile.native == 300
    assert profile.transparent == pytest.approx(11 / 41)
    assert profile.repeats == 1
    assert profile.imbalance == pytest.approx(profile.labeled["train"][0] / profile.labeled["train"][1])


def test_large_images_are_seen_to_take_longer_than_small_ones(tmp_path):
    for name, side in (("small", 16), ("large", 800)):
        for seed in range(12):
            save(noise(seed).resize((side, side)), tmp_path / name / CLASSES[seed % 3] / f"{seed}.png")
    assert looked(tmp_path / "large")[0].decoding > looked(tmp_path / "small")[0].decoding > 0


def test_own_splits_that_look_different_are_told_and_equal_ones_are_not(tmp_path):
    for split, brightness in (("train", 0), ("val", 0), ("test", 80)):
        for seed in range(60):
            pixels = np.asarray(noise(seed + 100 * brightness, 16)) // 2 + brightness
            save(
                Image.fromarray(pixels.astype(np.uint8)), tmp_path / "pets" / split / CLASSES[seed % 2] / f"{seed}.png"
            )
    profile, _ = looked(tmp_path / "pets")
    assert any("brightness of test is not that of train" in shift for shift in profile.shifts)
    assert not any("of val" in shift for shift in profile.shifts)


def test_what_can_not_be_read_is_left_to_ingest(tmp_path):
    folder = class_folders(tmp_path / "pets", 30)
    (folder / "cat" / "text.png").write_text("no picture")
    (folder / "cat" / "cut.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:60])
    profile, look = looked(folder)
    assert len(look.labels) == 34
    assert sum(profile.counts.values()) == 36


def test_too_many_images_under_two_labels_are_refused_as_ingest_would(tmp_path):
    folder = class_folders(tmp_path / "pets", 99)
    shutil.copy(folder / CLASSES[0] / "0.png", folder / CLASSES[1] / "copy.png")
    assert looked(folder)[0].repeats == 1
    shutil.copy(folder / CLASSES[0] / "3.png", folder / CLASSES[1] / "another.png")
    with pytest.raises(UserError, match=r"^4 of 105 images .*3.81%.*: 4 under two labels; .* fix or delete these"):
        looked(folder)


def test_what_can_not_be_learned_is_refused_before_anything_is_chosen(tmp_path):
    save(noise(777), class_folders(tmp_path / "pets", 9) / "lynx" / "1.png")
    with pytest.raises(UserError, match=r"too few usable images in 1 of 4 classes, lynx \(1\)"):
        looked(tmp_path / "pets")
