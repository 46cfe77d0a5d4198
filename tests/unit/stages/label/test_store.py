"""Filling the store with a real teacher that counts the views it labels."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reflux.components.core.artifacts import fingerprint
from reflux.components.core.data.shards import Shard
from reflux.components.core.teacher.soft_labels import Format, SoftLabels
from reflux.components.modalities.image.encoded import EncodedImages, write_encoding
from reflux.components.modalities.image.models.pixel_model import PixelModel, pixel_model
from reflux.components.modalities.image.views.mixing import Views, mixing_of, own_ids
from reflux.components.stages.label.soft_labels import teacher_logits
from reflux.components.stages.label.store import FilledStore, fill, publish, remove_others

CPU = torch.device("cpu")
DENSE = Format(3, 0)


class Counted:
    """A teacher that counts the views it labels, by a hook on its network."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: PixelModel = pixel_model("resnet8_slim", ("a", "b", "c"), 8, 1, (0.5,), (0.25,)).eval()
        self.labeled = 0
        self.stop_after = 10**9
        self.model.net.register_forward_hook(self._count)

    def _count(self, _net, inputs, _outputs) -> None:
        self.labeled += len(inputs[0])
        if self.labeled > self.stop_after:
            raise InterruptedError


@pytest.fixture
def teacher() -> Counted:
    return Counted()


def some_images(count: int) -> Shard:
    """The same images whatever ``count`` is, sorted by id as ``ingest`` does: added ones come in between."""
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 8, 8, 1), dtype=np.uint8)[:count]
    ids = np.random.default_rng(1).integers(0, 2**64, 3000, np.uint64)[:count]
    order = np.argsort(ids)
    return Shard(pixels[order], np.full(count, -1), ids[order])


def run(
    kept: Path,
    teacher: Counted,
    images: Shard,
    views: int = 2,
    teacher_is: str = "one",
    format: Format = DENSE,
    **mixing: float,
) -> tuple[FilledStore, int]:
    """The filled store, and the number of views that the teacher labeled."""
    augment = {"shift": 0.2, "flip": True, "crop_scale": 1.0, "erase": 0.0, **mixing}
    answer = partial(teacher_logits, teacher=teacher.model, views=Views(images, 1, augment), device=CPU)

    def partners_of(ids: np.ndarray):
        mixing = mixing_of(images, ids, 1, augment)
        return mixing.partner_ids if mixing else own_ids

    teacher.labeled, done = 0, []
    filled = fill({"teacher": teacher_is}, images.ids, views, format, 64, answer, done.append, partners_of, kept)
    assert sum(done) == len(images) * views == filled.computed + filled.reused
    return filled, teacher.labeled


def everything(filled: FilledStore, images: Shard, views: int, format: Format = DENSE) -> np.ndarray:
    """All records, ordered by image id."""
    store = SoftLabels(filled.folder, len(images), views, format)
    rows, numbers = np.divmod(np.arange(len(images) * views), views)
    return store.records(rows, numbers)


def nearly(one: np.ndarray, other: np.ndarray) -> bool:
    """The same up to what a batch of other neighbors changes in bfloat16."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    return bool(np.abs(one - other).max() <= 0.02 * np.ptp(other))


@pytest.mark.parametrize("format", [DENSE, Format(3, 1)])
def test_an_unchanged_store_asks_the_teacher_nothing(tmp_path: Path, teacher: Counted, format: Format):
    images = some_images(1100)
    first, labeled = run(tmp_path, teacher, images, format=format)
    assert (first.computed, first.reused, labeled) == (2200, 0, 2200)
    assert [shard["rows"] for shard in first.shards] == [1024, 76]
    again, labeled = run(tmp_path, teacher, images, format=format)
    assert (again.computed, again.reused, labeled) == (0, 2200, 0)
    assert again.shards == first.shards


def test_a_store_of_one_image_is_reused_too(tmp_path: Path, teacher: Counted):
    run(tmp_path, teacher, some_images(1))
    grown, labeled = run(tmp_path, teacher, some_images(3))
    assert (grown.computed, grown.reused, labeled) == (4, 2, 4)


@pytest.mark.parametrize("format", [DENSE, Format(3, 1)])
def test_added_images_are_the_only_ones_that_are_computed(tmp_path: Path, teacher: Counted, format: Format):
    run(tmp_path / "reused", teacher, some_images(1100), format=format)
    images = some_images(1200)
    grown, labeled = run(tmp_path / "reused", teacher, images, format=format)
    assert (grown.computed, grown.reused, labeled) == (200, 2200, 200)
    anew, _ = run(tmp_path / "anew", teacher, images, format=format)
    assert anew.computed == 2400
    records = [everything(filled, images, 2, format) for filled in (grown, anew)]
    parts = [records] if not format.top_k else [[r[name] for r in records] for name in ("logits", "rest")]
    assert all(nearly(*part) for part in parts)


MIXED = {"mixup": 0.4, "cutmix": 0.3, "mixup_alpha": 0.8, "cutmix_alpha": 1.0}


def test_a_mixed_view_is_computed_again_when_its_partner_changed_and_only_then(tmp_path: Path, teacher: Counted):
    before, images = some_images(1100), some_images(1150)
    run(tmp_path / "reused", teacher, before, **MIXED)
    grown, labeled = run(tmp_path / "reused", teacher, images, **MIXED)
    assert grown.computed == labeled
    # Of 2,200 old views 1,540 are mixed, and 50 of 1,150 partners are new.
    assert 100 + 30 < labeled < 100 + 120
    anew, _ = run(tmp_path / "anew", teacher, images, **MIXED)
    assert nearly(everything(grown, images, 2), everything(anew, images, 2))
    shrunk, labeled = run(tmp_path / "reused", teacher, before, **MIXED)
    assert (shrunk.computed, labeled) == (0, 0)
    known = everything(shrunk, before, 2)
    fewer, labeled = run(tmp_path / "anew", teacher, before, **MIXED)
    assert 30 < labeled < 120
    assert nearly(everything(fewer, before, 2), known)


def test_removed_images_cost_nothing(tmp_path: Path, teacher: Counted):
    run(tmp_path, teacher, some_images(1100))
    fewer, labeled = run(tmp_path, teacher, some_images(300))
    assert (fewer.computed, fewer.reused, labeled) == (0, 600, 0)


def test_added_views_are_the_only_ones_that_are_computed(tmp_path: Path, teacher: Counted):
    images = some_images(100)
    run(tmp_path / "reused", teacher, images, views=2)
    more, labeled = run(tmp_path / "reused", teacher, images, views=3)
    assert (more.computed, more.reused, labeled) == (100, 200, 100)
    anew, _ = run(tmp_path / "anew", teacher, images, views=3)
    assert nearly(everything(more, images, 3), everything(anew, images, 3))
    fewer, labeled = run(tmp_path / "reused", teacher, images, views=1)
    assert (fewer.computed, fewer.reused, labeled) == (0, 100, 0)


def test_another_teacher_shares_nothing_and_is_named_as_the_reason(tmp_path: Path, teacher: Counted):
    images = some_images(50)
    first, _ = run(tmp_path, teacher, images)
    other, labeled = run(tmp_path, teacher, images, teacher_is="another")
    assert (other.computed, labeled) == (100, 100)
    assert other.key != first.key
    assert (first.changed, other.changed) == ((), ("teacher",))
    remove_others(other)
    grown, _ = run(tmp_path, teacher, some_images(60), teacher_is="another")
    assert (grown.reused, grown.changed) == (100, ())


def test_finished_shards_survive_an_interruption_to_the_bit(tmp_path: Path, teacher: Counted):
    images = some_images(2100)
    whole, _ = run(tmp_path / "whole", teacher, images)
    teacher.stop_after = 3000
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", teacher, images)
    teacher.stop_after = 10**9
    after, labeled = run(tmp_path / "cut", teacher, images)
    assert (after.reused, labeled) == (2048, 2 * 2100 - 2048)
    assert after.shards == whole.shards
    assert fingerprint(after.folder) == fingerprint(whole.folder)


def test_an_interrupted_store_serves_one_of_more_images(tmp_path: Path, teacher: Counted):
    teacher.stop_after = 3000
    with pytest.raises(InterruptedError):
        run(tmp_path, teacher, some_images(2100))
    teacher.stop_after = 10**9
    grown, labeled = run(tmp_path, teacher, some_images(2200))
    assert (grown.reused, labeled) == (2048, 2 * 2200 - 2048)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "note"])
def test_a_damaged_shard_is_computed_again_and_only_that_one(tmp_path: Path, teacher: Counted, damage: str):
    images = some_images(1100)
    first, _ = run(tmp_path, teacher, images)
    file = first.folder / first.shards[1]["file"]
    before = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "note":
        file.with_suffix(".json").write_text("{")
    else:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if damage == "bit" else before[:-7])
    again, labeled = run(tmp_path, teacher, images)
    assert (again.reused, labeled) == (2048, 152)
    assert file.read_bytes() == before
    file.write_bytes(before[:-7])
    grown, labeled = run(tmp_path, teacher, some_images(1101))
    assert (grown.reused, labeled) == (2048, 154)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
@pytest.mark.parametrize("name", ["ids.npy", "head.json"])
def test_a_store_that_no_longer_says_whose_it_is_gives_nothing(
    tmp_path: Path, teacher: Counted, damage: str, name: str
):
    images = some_images(60)
    for count, views, computed in ((60, 2, 120), (61, 2, 122), (60, 3, 180)):
        first, _ = run(tmp_path / f"{count} {views}", teacher, images)
        file = first.folder / name
        data = file.read_bytes()
        changed = data.replace(b"2", b"3") if name == "head.json" else data[:-1] + bytes([data[-1] ^ 1])
        file.unlink() if damage == "gone" else file.write_bytes(changed if damage == "bit" else data[:-9])
        again, labeled = run(tmp_path / f"{count} {views}", teacher, some_images(count), views=views)
        assert (again.computed, labeled) == (computed, computed)


def test_what_is_published_outlives_dvc_and_is_the_same_bytes(tmp_path: Path, teacher: Counted):
    images = some_images(60)
    filled, _ = run(tmp_path / "kept", teacher, images)
    out = tmp_path / "artifacts/store"
    for _ in range(2):
        publish(filled, out)
        assert {file.name for file in out.iterdir()} == {"ids.npy", "000000.npy"}
        assert not list(out.parent.glob(".*"))
    assert out.joinpath("000000.npy").samefile(filled.folder / "000000.npy")
    out.joinpath("000000.npy").unlink()
    assert run(tmp_path / "kept", teacher, images)[1] == 0


def test_a_disk_without_links_gets_copies(tmp_path: Path, teacher: Counted, monkeypatch):
    def refuse(*_args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    filled, _ = run(tmp_path / "kept", teacher, some_images(60))
    monkeypatch.setattr("os.link", refuse)
    publish(filled, tmp_path / "store")
    copy, original = tmp_path / "store/000000.npy", filled.folder / "000000.npy"
    assert copy.read_bytes() == original.read_bytes()
    assert not copy.samefile(original)


def test_only_the_last_store_is_kept(tmp_path: Path, teacher: Counted):
    for teacher_is, count in (("a", 50), ("b", 50), ("b", 60)):
        filled, _ = run(tmp_path, teacher, some_images(count), teacher_is=teacher_is)
    assert len(list(tmp_path.iterdir())) == 3
    remove_others(filled)
    assert list(tmp_path.iterdir()) == [filled.folder]


def test_encoded_images_are_decoded_once_for_all_their_views_to_the_same_bits(
    tmp_path: Path, teacher: Counted, monkeypatch
):
    plain = some_images(300)
    files = []
    for image in plain.images:
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1)).save(file, "PNG")
        files.append(file.getvalue())
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "images.bin").write_bytes(b"".join(files))
    write_encoding(tmp_path / "split", np.cumsum([len(file) for file in files]), 8, 1)
    encoded = Shard(EncodedImages(tmp_path / "split"), plain.labels, plain.ids)
    decoded = []

    def counted(self: EncodedImages, rows: np.ndarray, decode=EncodedImages.decode) -> np.ndarray:
        decoded.extend(rows.tolist())
        return decode(self, rows)

    monkeypatch.setattr(EncodedImages, "decode", counted)
    filled, _ = run(tmp_path / "encoded", teacher, encoded, views=4)
    assert sorted(decoded) == list(range(300))
    same, _ = run(tmp_path / "decoded", teacher, plain, views=4)
    assert filled.shards == same.shards
    # And the logits of one view of many images at a time.
    exact = Views(plain, 1, {"shift": 0.2, "flip": True, "crop_scale": 1.0, "erase": 0.0})
    for view in range(4):
        rows = np.arange(256)
        alone = torch.cat(
            [teacher_logits(r, np.full(64, view), teacher.model, exact, CPU) for r in rows.reshape(4, 64)]
        )
        assert np.array_equal(everything(filled, plain, 4).reshape(300, 4, 3)[:256, view], DENSE.pack(alone))
