import json
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from reflux.components.core.artifacts import sha256_file
from reflux.components.core.errors import UserError
from reflux.components.core.teacher.soft_labels import (
    Format,
    SoftLabels,
    format_for,
    open_store,
    shard_file,
    shard_rows,
)

CLASSES = ("a", "b", "c")


def random_logits(count: int, classes: int, spread: float, seed: int) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * spread


def test_records_are_as_small_as_promised_and_top_k_is_taken_exactly_when_it_is_smaller():
    for classes in (2, 10, 65, 66, 67, 100, 1000, 21_841):
        format = format_for(classes, 32)
        assert format.dtype.itemsize == min(2 * classes, 4 * 32 + 4)
        assert bool(format.top_k) == (2 * classes > 4 * 32 + 4)
    assert format_for(100_000, 32).dtype["classes"].base == np.uint32


@given(classes=st.integers(2, 300), spread=st.floats(0.01, 50), seed=st.integers(0, 999))
def test_dense_logits_come_back_to_half_a_unit_of_float16(classes: int, spread: float, seed: int):
    logits = random_logits(5, classes, spread, seed)
    format = Format(classes, 0)
    bound = logits.abs() * 2.0**-11 + 2.0**-25
    assert ((format.unpack(format.pack(logits)) - logits).abs() <= bound).all()


@given(
    classes=st.integers(4, 300),
    share=st.floats(0.01, 0.99),
    spread=st.floats(0.01, 20),
    temperature=st.floats(0.5, 16),
    seed=st.integers(0, 999),
)
def test_top_k_keeps_the_largest_and_the_mass_of_the_rest(classes, share, spread, temperature, seed):
    """At any temperature nothing is off by more than what the rest is flattened by, and at T = 1 no mass is lost."""
    logits = random_logits(5, classes, spread, seed).double()
    top_k = min(max(1, int(share * classes)), classes - 1)
    format = Format(classes, top_k)
    again = format.unpack(format.pack(logits)).double()
    top, where = logits.topk(top_k, dim=1)
    rounding = float(top.abs().max()) * 2.0**-11 + 1e-4
    assert (again.gather(1, where) - top).abs().max() <= rounding
    exact, stored = (torch.ones_like(logits, dtype=torch.bool).scatter(1, where, False), again)
    lost = [torch.logsumexp(x.masked_fill(~exact, -torch.inf), 1) for x in (logits, stored)]
    assert (lost[0] - lost[1]).abs().max() <= 1e-4
    rest = logits.masked_fill(~exact, torch.nan)
    even = torch.logsumexp(logits.masked_fill(~exact, -torch.inf), 1, keepdim=True) - np.log(classes - top_k)
    flattened = float(torch.nan_to_num((rest - even).abs(), 0).max())
    log_p, log_q = (F.log_softmax(x / temperature, 1) for x in (logits, again))
    bound = 2 * (max(flattened, rounding) + 1e-4) / temperature
    assert (log_p - log_q).abs().max() <= bound
    assert F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1).max() <= bound


def make_store(folder: Path, images: int, views: int, format: Format, seed: int = 0) -> tuple[torch.Tensor, dict]:
    logits = random_logits(images * views, format.classes, 3.0, seed).view(images, views, -1)
    shards, begin = [], 0
    folder.mkdir(parents=True)
    for number, rows in enumerate(shard_rows(images)):
        file = folder / shard_file(number)
        part = logits[begin : begin + rows].flatten(0, 1)
        packed = format.pack(part)
        np.save(file, packed.reshape(rows, views, *packed.shape[1:]))
        shards.append({"file": file.name, "rows": rows, "sha256": sha256_file(file)})
        begin += rows
    (folder.parent / "teacher").write_text("weights")
    manifest = {
        "teacher_sha256": sha256_file(folder.parent / "teacher"), "views_key": "views", "views": views,
        "images": images, "classes": list(CLASSES), "top_k": format.top_k, "shards": shards,
    }  # fmt: skip
    return logits, json.loads(json.dumps(manifest))


@pytest.mark.parametrize("format", [Format(3, 0), Format(100, 8)])
def test_any_batch_of_views_is_gathered_from_any_shards(tmp_path: Path, format: Format):
    logits, _ = make_store(tmp_path / "store", 2100, 2, format)
    store = SoftLabels(tmp_path / "store", 2100, 2, format)
    rng = np.random.default_rng(0)
    indices, views = rng.integers(0, 2100, 64), rng.integers(0, 2, 64)
    gathered = store(indices, views)
    assert (gathered.dtype, gathered.shape) == (torch.float32, (64, format.classes))
    wanted = logits[indices, views]
    assert torch.equal(gathered, format.unpack(format.pack(wanted)))


def test_a_store_of_a_million_images_holds_no_file_open(tmp_path: Path):
    (tmp_path / "store").mkdir()
    shard = np.zeros((1024, 1, 2), np.float16)
    for number in range(1100):
        np.save(tmp_path / "store" / shard_file(number), shard)
    before = psutil.Process().num_fds()
    store = SoftLabels(tmp_path / "store", 1100 * 1024, 1, Format(2, 0))
    assert store(np.array([1_100_000]), np.array([0])).tolist() == [[0, 0]]
    assert psutil.Process().num_fds() == before


def opened(folder: Path, manifest: dict, views_key: str = "views", classes: tuple[str, ...] = CLASSES) -> SoftLabels:
    return open_store(folder, manifest, sha256_file(folder.parent / "teacher"), views_key, classes)


def test_a_whole_store_opens(tmp_path: Path):
    logits, manifest = make_store(tmp_path / "store", 1030, 2, Format(3, 0))
    store = opened(tmp_path / "store", manifest)
    assert store.views == 2
    assert torch.equal(store(np.array([1029]), np.array([1])), logits[1029, 1].half().float()[None])


def damage(kind: str, file: Path) -> None:
    data = bytearray(file.read_bytes())
    if kind == "bit":
        data[-1] ^= 1
    elif kind == "cut":
        data = data[:-10]
    elif kind == "longer":
        data += b"0" * 10
    elif kind == "empty":
        data.clear()
    file.write_bytes(data)
    if kind == "gone":
        file.unlink()


@pytest.mark.parametrize("kind", ["bit", "cut", "longer", "empty", "gone"])
def test_each_kind_of_damage_is_refused_in_one_sentence(tmp_path: Path, kind: str):
    _, manifest = make_store(tmp_path / "label/store", 1030, 2, Format(3, 0))
    damage(kind, tmp_path / "label/store" / shard_file(1))
    (tmp_path / "label/teacher").write_text("weights")
    with pytest.raises(UserError, match=rf"000001.npy is damaged .* delete {tmp_path}/label and run `reflux run`"):
        opened(tmp_path / "label/store", manifest)


@pytest.mark.parametrize("kind", ["cut", "longer", "empty", "gone"])
def test_a_shard_of_another_shape_is_refused_even_when_its_hash_is_right(tmp_path: Path, kind: str):
    make_store(tmp_path / "store", 100, 2, Format(3, 0))
    damage(kind, tmp_path / "store" / shard_file(0))
    with pytest.raises(UserError, match="is damaged"):
        SoftLabels(tmp_path / "store", 100, 2, Format(3, 0))
    for images, views, format in ((99, 2, Format(3, 0)), (100, 1, Format(3, 0)), (100, 2, Format(3, 1))):
        with pytest.raises(UserError, match="is damaged"):
            SoftLabels(tmp_path / "store", images, views, format)


def test_a_store_of_something_else_is_refused(tmp_path: Path):
    _, manifest = make_store(tmp_path / "store", 100, 2, Format(3, 0))
    with pytest.raises(UserError, match="other images, views or classes"):
        opened(tmp_path / "store", manifest, views_key="other views")
    with pytest.raises(UserError, match="other images, views or classes"):
        opened(tmp_path / "store", manifest, classes=("a", "b", "d"))
    with pytest.raises(UserError, match="another version"):
        opened(tmp_path / "store", {"views": 2, "sha256": "of the one file that there was"})
    (tmp_path / "teacher").write_text("other weights")
    with pytest.raises(UserError, match="another teacher"):
        opened(tmp_path / "store", manifest)
