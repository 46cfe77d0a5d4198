import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from reflux.components.core.data.shards import open_shard
from reflux.components.stages.ingest.decoding import level_columns
from reflux.components.stages.ingest.shards import channel_moments, fingerprint, write_shards


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
            ordered = write_shards(mixed, raw, (2, 3, 1), False, Path(folder, "shards"))
            shards = {s: open_shard(Path(folder, "shards", s)) for s in ("train", "val", "test", "unlabeled")}
            for row in ordered.itertuples():
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


def test_fingerprint_knows_contents_and_labels_but_no_order() -> None:
    assert fingerprint(["a", "b"], [0, 1]) == fingerprint(["b", "a"], [1, 0])
    assert len({fingerprint(["a", "b"], labels) for labels in ([0, 1], [1, 0], [0, 0])}) == 3
