import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.core.errors import UserError
from components.core.images.shards import open_shard
from components.ingest.checks import drop_repeats, refuse_unlearnable, refuse_unreadable
from components.ingest.decoding import Failure, decode_all, level_columns
from components.ingest.ingest import Storage, keeps_encoded
from components.ingest.items import Item
from components.ingest.shards import channel_moments, fingerprint, write_shards


def picture(value: int, size: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("L", (size, size), value).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("encoded", [False, True])
def test_decoding_keeps_order_and_names_what_failed(tmp_path: Path, encoded: bool) -> None:
    (tmp_path / "file.png").write_bytes(picture(200))
    items = [Item(f"{i}.png", None, i % 2, picture(i)) for i in range(100)]
    items[7] = Item("7.png", "train", 0, b"")
    items[50] = Item("50.png", None, 1, tmp_path / "missing.png")
    items[60] = Item("60.png", "val", 1, tmp_path / "file.png")
    items[61] = Item("61.png", None, 1, tmp_path)
    scratch = io.BytesIO()
    frame, failures = decode_all(items, 100, scratch, 1, 2, max_megapixels=1, encoded=encoded, threads=3)
    expected = [200 if i == 60 else i for i in range(100) if i not in (7, 50, 61)]
    stored = [scratch.getvalue()[begin:end] for begin, end in zip(frame["begin"], frame["end"], strict=True)]
    assert stored == [picture(value) if encoded else bytes([value]) * 4 for value in expected]
    assert sum(map(len, stored)) == len(scratch.getvalue())
    assert frame["sum_0"].tolist() == [4 * value for value in expected]
    assert frame["squares_0"].tolist() == [4 * value**2 for value in expected]
    assert frame["path"].tolist() == [f"{i}.png" for i in range(100) if i not in (7, 50, 61)]
    assert frame.set_index("path").loc["60.png", ["given_split", "label", "bytes", "width"]].tolist() == [
        *("val", 1, len(picture(200)), 4)
    ]
    assert [f.reason for f in failures] == [
        "7.png is empty (zero bytes).",
        "50.png does not exist.",
        "61.png can't be read (Is a directory).",
    ]


def frame_of(*rows: tuple[str, str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "split", "label", "sha256"])


def test_repeats_are_left_out_only_where_nothing_is_in_doubt() -> None:
    frame = frame_of(
        ("b.png", "train", 0, "aa"),
        ("a.png", "train", 0, "aa"),
        ("c.png", "train", 1, "aa"),
        ("d.png", "test", 0, "aa"),
        ("e.png", "train", 0, "bb"),
    )
    kept, repeats = drop_repeats(frame)
    assert kept["path"].tolist() == ["a.png", "c.png", "d.png", "e.png"]
    assert [r.reason for r in repeats] == ["b.png has the same content as a.png in the same split."]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("a", "train", 0, "1"), ("b", "train", 0, "2")], r"has one class \(cat\)"),
        ([("a", "unlabeled", -1, "1")], "has no labeled images"),
        (
            [("a", "train", 0, "1"), ("b", "train", 0, "2"), ("c.png", "train", 1, "3")],
            r"has one image of dog \(c.png\)",
        ),
        ([("a", "val", i % 2, str(i)) for i in range(4)], "has no training images"),
    ],
)
def test_dataset_that_can_not_be_learned_is_refused(rows: list[tuple[str, str, int, str]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        refuse_unlearnable(frame_of(*rows), ["cat", "dog"], Path("data"))


def test_unreadable_images_are_tolerated_up_to_their_share() -> None:
    failures = [Failure(f"{i}.png", f"{i}.png is empty.") for i in range(5)]
    refuse_unreadable(failures, 100, 0.05, Path("data"), Path("q"))
    with pytest.raises(
        UserError,
        match=r"5 of 99 images in data can't be used \(5.05%, and ingest.max_unreadable is 5.00%\): 0.png is empty, "
        r"1.png is empty, 2.png is empty and 2 more; .*listed in q",
    ):
        refuse_unreadable(failures, 99, 0.05, Path("data"), Path("q"))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), st.integers(0, 3)), min_size=1, max_size=30), st.data())
def test_shards_do_not_depend_on_the_order_of_files(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    count = len(rows)
    values = np.arange(count, dtype=np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (count, 2, 3, 1))
    table = pd.DataFrame(rows, columns=["split", "label"])
    table["path"] = [f"{i}.png" for i in range(count)]
    # Only the low bits of the first eight bytes differ, and some images are the same.
    table["sha256"] = [f"{i // 2:064x}"[::-1] for i in range(count)]
    order = data.draw(st.permutations(range(count)))
    written = []
    for rows_in_order in (list(range(count)), order):
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder, "pixels")
            raw.write_bytes(pixels[rows_in_order].tobytes())
            mixed = table.iloc[rows_in_order].reset_index(drop=True)
            mixed["begin"] = np.arange(count) * 6
            mixed["end"] = mixed["begin"] + 6
            found = write_shards(mixed, raw, (2, 3, 1), False, Path(folder, "shards"))
            shards = {s: open_shard(Path(folder, "shards", s)) for s in ("train", "val", "test", "unlabeled")}
            for row in found.itertuples():
                shard = shards[row.split]
                assert (shard.images[row.row] == int(row.path.split(".")[0])).all()
                assert shard.labels[row.row] == row.label
                assert int(shard.ids[row.row]) == int.from_bytes(bytes.fromhex(row.sha256)[:8], "big")
            assert all((np.diff(s.ids.astype(object)) >= 0).all() for s in shards.values())
            assert sum(len(s) for s in shards.values()) == count
            written.append({s: shard.images.tobytes() for s, shard in shards.items()})
            del shards
    assert written[0] == written[1]


def test_moments_are_those_of_the_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1500, 3, 3, 3))
    levels = np.concatenate([images.sum(axis=(1, 2)), (images**2).sum(axis=(1, 2))], axis=1)
    mean, std = channel_moments(pd.DataFrame(levels, columns=level_columns(3)), 9)
    assert np.allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    assert np.allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)
    black = pd.DataFrame([(0, 0)], columns=level_columns(1))
    assert channel_moments(black, 9) == ([0.0], [1 / 255])


@pytest.mark.parametrize(
    ("storage", "decoded_max_gb", "encoded"),
    [
        ("auto", 0.0012, False),
        ("auto", 0.00119, True),
        ("decoded", 0, False),
        ("encoded", 8, True),
    ],
)
def test_auto_keeps_images_encoded_when_they_are_more_than_was_allowed(
    storage: Storage, decoded_max_gb: float, encoded: bool
) -> None:
    assert keeps_encoded(storage, 100, (20, 200, 3), decoded_max_gb) == encoded


def test_fingerprint_knows_contents_and_labels_but_no_order() -> None:
    assert fingerprint(["a", "b"], [0, 1]) == fingerprint(["b", "a"], [1, 0])
    assert len({fingerprint(["a", "b"], labels) for labels in ([0, 1], [1, 0], [0, 0])}) == 3
