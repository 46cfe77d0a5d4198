"""Datasets in any format become the same shards, wherever their images come from."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.contract import SPLITS
from components.core.images.shards import open_shard
from tests.datasets import CLASSES, bad_files, class_folders, noise, run_ingest, save


def contents(out: Path) -> dict[str, bytes]:
    files = [f"shards/{split}/{name}.npy" for split in SPLITS for name in ("images", "labels", "ids")]
    return {name: (out / name).read_bytes() for name in files}


def test_three_forms_of_one_dataset_become_the_same(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "folders")
    files = sorted(folders.rglob("*.png"))
    labels = [None if f.parent.name == "unlabeled" else f.parent.name for f in files]
    with (folders / "manifest.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(
            [
                ("path", "label"),
                *((f.relative_to(folders), label or "") for f, label in zip(files, labels, strict=True)),
            ]
        )
    images = pa.array([{"bytes": f.read_bytes(), "path": f.name} for f in files])
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "images.parquet")

    from_manifest = run_ingest(folders, tmp_path / "manifest").dataset
    (folders / "manifest.csv").unlink()
    from_folders = run_ingest(folders, tmp_path / "out").dataset
    from_parquet = run_ingest(tmp_path / "images.parquet", tmp_path / "parquet").dataset
    assert from_folders["fingerprint"] == from_manifest["fingerprint"] == from_parquet["fingerprint"]
    assert contents(tmp_path / "out") == contents(tmp_path / "manifest") == contents(tmp_path / "parquet")
    assert from_folders["classes"] == list(CLASSES)
    assert from_folders["counts"]["unlabeled"] == 4
    assert sum(from_folders["counts"].values()) == 64


def test_encoded_images_are_the_same_pixels_in_fewer_bytes(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    # What other files than plain RGB are decoded to must not depend on when they are decoded.
    save(noise(500, 40).convert("CMYK"), folders / "cat" / "cmyk.jpg")
    save(noise(501).convert("P"), folders / "dog" / "palette.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(noise(502, 30).crop((0, 0, 30, 20)), folders / "owl" / "turned.jpg", exif=turned)
    save(noise(503).convert("RGBA").rotate(30), folders / "owl" / "clear.webp", lossless=True)
    for channels in (1, 3):
        decoded, encoded = tmp_path / f"decoded-{channels}", tmp_path / f"encoded-{channels}"
        facts = [
            run_ingest(folders, out, channels=channels, image_size=64, storage=out.name.split("-")[0]).dataset
            for out in (decoded, encoded)
        ]
        assert facts[0] == facts[1]
        assert (decoded / "manifest.parquet").read_bytes() == (encoded / "manifest.parquet").read_bytes()
        for split in SPLITS:
            first, second = (open_shard(out / "shards" / split) for out in (decoded, encoded))
            assert first.images.shape == second.images.shape
            assert np.array_equal(first.images[:], second.images[:])
            assert np.array_equal(first.labels, second.labels)
            assert np.array_equal(first.ids, second.ids)
    assert sum(f.stat().st_size for f in (encoded / "shards").rglob("images.bin")) < 75 * 64 * 64


def test_manifest_leads_to_the_pixels(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    facts = run_ingest(folders, tmp_path / "out", image_size=12).dataset
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    for split, rows in manifest.groupby("split"):
        shard = open_shard(tmp_path / "out" / "shards" / str(split))
        assert len(shard) == len(rows) == facts["counts"][split]
        for row in rows.itertuples():
            assert np.array_equal(shard.images[row.row], np.asarray(Image.open(folders / row.path)))
            label = -1 if split == "unlabeled" else CLASSES.index(Path(row.path).parent.name)
            assert shard.labels[row.row] == label
            assert pd.isna(row.label) if label < 0 else row.label == label
            assert pd.isna(row.class_name) if label < 0 else row.class_name == CLASSES[label]
    train = open_shard(tmp_path / "out" / "shards" / "train").images / 255
    assert np.allclose(facts["mean"], train.mean(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(facts["std"], train.std(axis=(0, 1, 2)), atol=1e-6)


def test_slices_of_a_manifest_stay_with_their_images(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    files = sorted(f.relative_to(folders).as_posix() for f in folders.rglob("*.png"))
    cameras = {file: f"camera {int(Path(file).stem) % 4}" for file in files}
    with (folders / "manifest.csv").open("w", newline="") as handle:
        rows = [(f, "" if f.startswith("unlabeled") else f.split("/")[0], cameras[f]) for f in files]
        csv.writer(handle).writerows([("path", "label", "camera"), *rows])
    plain = run_ingest(folders, tmp_path / "plain").dataset
    assert run_ingest(folders, tmp_path / "out", slices=["camera"]).dataset == plain
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    assert dict(zip(manifest["path"], manifest.pop("slice:camera"), strict=True)) == cameras
    pd.testing.assert_frame_equal(manifest, pd.read_parquet(tmp_path / "plain" / "manifest.parquet"))


def test_added_and_repeated_images_move_none(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    run_ingest(folders, tmp_path / "before")
    for seed in range(300, 330):
        save(noise(seed), folders / CLASSES[seed % 3] / f"{seed}.png")
    # The same picture in another file is a repeat, wherever its hash puts it.
    for seed in range(9):
        save(noise(seed), folders / CLASSES[seed % 3] / f"zz-again-{seed}.bmp")
    result = run_ingest(folders, tmp_path / "after")
    before, after = (
        pd.read_parquet(tmp_path / name / "manifest.parquet").set_index("path")["split"] for name in ("before", "after")
    )
    assert after[before.index].equals(before)
    assert len(after) == len(before) + 30
    assert result.repeats == 9
    quarantine = pd.read_parquet(tmp_path / "after" / "quarantine.parquet")
    assert set(quarantine["kind"]) == {"repeat"}
    assert "cat/zz-again-0.bmp has the same content as cat/0.png in the same split." in set(quarantine["reason"])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_images_are_listed(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    bad = bad_files(folders)
    result = run_ingest(folders, tmp_path / "ingest")
    quarantine = pd.read_parquet(tmp_path / "ingest" / "quarantine.parquet")
    assert set(quarantine["path"]) == bad
    assert result.unreadable == len(bad)
    reasons = dict(zip(quarantine["path"], quarantine["reason"], strict=True))
    assert "12000 x 9000 pixels, more than the 50 megapixels" in reasons["dog/bomb.png"]
    assert reasons["dog/text.png"] == "dog/text.png is not a PNG, JPEG, WebP or BMP image."
