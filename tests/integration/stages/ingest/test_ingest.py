"""Datasets in any format become the same shards, wherever their images come from."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reflux.components.core.contract import SPLITS
from reflux.components.core.data.shards import open_shard
from reflux.components.core.errors import UserError
from tests.datasets import (
    CLASSES,
    bad_files,
    class_folders,
    copy_into_splits,
    image_of,
    leak_test_image,
    noise,
    run_ingest,
    save,
)


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


def test_what_training_reads_of_the_dataset_knows_no_split_but_its_own(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    copy_into_splits(folders)
    contents = []
    for place in ("unlabeled", "test/cat", "train/cat"):
        run_ingest(folders, tmp_path / place)
        contents.append((tmp_path / place / "images.json").read_bytes())
        save(noise(900 + len(contents)), folders / place / "new.png")
    run_ingest(folders, tmp_path / "all")
    contents.append((tmp_path / "all/images.json").read_bytes())
    assert contents[0] == contents[1] == contents[2] != contents[3]


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


def test_added_and_repeated_images_move_none_but_from_what_was_held_out_of_a_small_class(tmp_path: Path) -> None:
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
    moved = after[before.index] != before
    assert set(after[before.index][moved]) <= {"train"}
    assert 0 < moved.sum() < 6
    assert len(after) == len(before) + 30
    assert result.left_out == {"repeat": 9}
    quarantine = pd.read_csv(tmp_path / "after" / "quarantine.csv")
    assert set(quarantine["kind"]) == {"repeat"}
    assert "cat/zz-again-0.bmp has the same content as cat/0.png in the same split." in set(quarantine["reason"])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_images_are_listed(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    bad = bad_files(folders)
    result = run_ingest(folders, tmp_path / "ingest")
    quarantine = pd.read_csv(tmp_path / "ingest" / "quarantine.csv")
    assert set(quarantine["path"]) == bad
    assert result.left_out == {"unreadable": len(bad)}
    reasons = dict(zip(quarantine["path"], quarantine["reason"], strict=True))
    assert "12000 x 9000 pixels, more than the 50 megapixels" in reasons["dog/bomb.png"]
    assert reasons["dog/text.png"] == "dog/text.png is text and no image."


def test_a_name_that_is_a_formula_is_a_text_in_the_list(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    (folders / "cat").rename(folders / "=cmd")
    (folders / "=cmd" / "bad.png").write_text("no image")
    run_ingest(folders, tmp_path / "out")
    with (tmp_path / "out" / "quarantine.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"path": "'=cmd/bad.png", "reason": "'=cmd/bad.png is text and no image.", "kind": "unreadable"}


def test_images_that_can_not_be_trained_or_tested_on_are_set_aside_and_the_run_goes_on(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    copy_into_splits(folders)
    leak_test_image(folders)
    shutil.copy(image_of(folders, "train", "cat"), folders / "train" / "dog" / "also-a-cat.png")
    shutil.copy(image_of(folders, "val", "owl"), folders / "unlabeled" / "owl.png")
    save(noise(500, 7), folders / "train" / "owl" / "tiny.png")
    result = run_ingest(folders, tmp_path / "out", max_quarantined=0.05)
    assert result.left_out == {"small": 1, "labels": 2, "overlap": 2}
    reasons = set(pd.read_csv(tmp_path / "out" / "quarantine.csv")["reason"])
    assert "train/owl/tiny.png has 7 x 7 pixels, and ingest.min_size_px asks for 8 each way." in reasons
    leak, owl = image_of(folders, "test", "cat"), image_of(folders, "val", "owl")
    assert f"train/cat/leak.bmp in train has the same content as test/cat/{leak.name} in test." in reasons
    assert f"unlabeled/owl.png in unlabeled has the same content as val/owl/{owl.name} in val." in reasons
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    assert manifest["sha256"].is_unique
    assert len(manifest) == 64 - 1
    with pytest.raises(UserError, match=r"3 of 68 images .* 1 smaller than ingest.min_size_px, 2 under two labels; "):
        run_ingest(folders, tmp_path / "out", max_quarantined=0.04)


def classes_of(root: Path, counts: dict[str, int], side: int = 12) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            save(noise(1000 * number + i, side), root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"cat": 9}, r"data has one class \(cat\): a classifier needs at least two"),
        ({"unlabeled": 9}, "data has no labeled images that can be used: label at least three"),
        ({"cat": 9, "dog": 9, "emu": 1}, r"too few usable images in 1 of 3 classes, emu \(1\): each needs at least 3"),
        (
            {f"{i:03}": 2 for i in range(300)},
            r"in 300 of 300 classes, 000 \(2\), 001 \(2\), 002 \(2\) and 297 more: each needs at least 3",
        ),
    ],
)
def test_too_little_to_learn_from_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, counts: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_ingest(classes_of(tmp_path / "data", counts), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_two_photographs_are_too_few(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(Image.effect_noise((4000, 3000), 50), tmp_path / "data" / name / "1.jpg")
    with pytest.raises(UserError, match=r"in 2 of 2 classes, cat \(1\), dog \(1\): each needs at least 3"):
        run_ingest(tmp_path / "data", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_twelve_images_are_enough_for_an_image_of_each_class_in_each_split(tmp_path: Path) -> None:
    counts = run_ingest(classes_of(tmp_path / "data", {"cat": 6, "dog": 6}), tmp_path / "out").dataset["counts"]
    assert sum(counts.values()) == 12
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    assert manifest.groupby(["split", "label"]).size().min() >= 1
    assert len(manifest.groupby(["split", "label"])) == 6


def listed(folder: Path, splits: bool = False) -> Path:
    """Sixty images of twelve patients in a manifest, and an unlabeled image of each patient in another."""
    for seed in range(72):
        save(noise(seed), folder / f"{seed}.png")
    rows = [f"{i}.png,{CLASSES[i % 3]},p{i // 5}" + f",{('train', 'test')[i % 2]}" * splits for i in range(60)]
    (folder / "labels.csv").write_text("\n".join(["path,label,patient" + ",split" * splits, *rows]))
    (folder / "unlabeled.csv").write_text("\n".join(["path,patient", *(f"{i}.png,p{i - 60}" for i in range(60, 72))]))
    return folder


def test_a_patient_is_on_one_side_of_every_split(tmp_path: Path) -> None:
    result = run_ingest(listed(tmp_path / "data"), tmp_path / "out", group="patient")
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    sides = manifest.replace({"split": {"unlabeled": "train"}}).groupby("group")["split"].nunique()
    assert sides.tolist() == [1] * 12
    assert set(manifest["split"]) == set(SPLITS)
    left_out = pd.read_csv(tmp_path / "out" / "quarantine.csv")
    held_out = manifest.loc[manifest["split"].isin(["val", "test"]), "group"].nunique()
    assert result.left_out == {"group": held_out}
    assert set(left_out["kind"]) == {"group"}
    as_slice = run_ingest(tmp_path / "data", tmp_path / "again", group="patient", slices=["patient"])
    assert as_slice.dataset["fingerprint"] == result.dataset["fingerprint"]


def test_given_splits_that_part_a_patient_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images of the patient 'p0' in test and train, 'p1' in test and val"):
        run_ingest(listed(tmp_path / "data", splits=True), tmp_path / "out", group="patient")
    assert list((tmp_path / "out").iterdir()) == []
