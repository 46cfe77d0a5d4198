"""Ingest and validate together: as functions where that is enough, as processes under real DVC where it is not."""

import csv
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.contract import SPLITS
from components.core.images.shards import open_shard
from components.core.params.file import override_params
from components.ingest.ingest import Ingested, ingest
from components.validate.findings import Finding
from components.validate.validate import Verdict, validate

ROOT = Path(__file__).parents[2]
CLASSES = ("cat", "dog", "owl")


def noise(seed: int, side: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def class_folders(root: Path, count: int = 60) -> Path:
    """``count`` different images in three classes, without splits, and four unlabeled ones."""
    for seed in range(count):
        save(noise(seed), root / CLASSES[seed % 3] / f"{seed}.png")
    for seed in range(4):
        save(noise(10_000 + seed), root / "unlabeled" / f"{seed}.png")
    return root


def run_ingest(source: Path, out: Path, **changes: Any) -> Ingested:
    options: dict[str, Any] = {"image_size": 8, "channels": 3, "val": 0.2, "test": 0.2, "max_unreadable": 0.2}
    out.mkdir(parents=True, exist_ok=True)
    options |= {"storage": "auto", "decoded_max_gb": 8, "max_megapixels": 50, "threads": 2}
    return ingest(source, out, **(options | changes))


def run_validate(out: Path, **changes: Any) -> Verdict:
    options: dict[str, Any] = {"min_per_class": 1, "min_size_px": 8, "max_size_px": 100, "near_duplicate_bits": 8}
    files = [out / "manifest.parquet", out / "quarantine.parquet", out / "dataset.json", out.parent / "validate"]
    return validate(
        *files, out.parent / "versions.jsonl", **(options | {"max_constant": 0.1, "max_class_shift": 0.1} | changes)
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


def bad_files(root: Path) -> set[str]:
    whole = io.BytesIO()
    noise(1, 64).save(whole, "JPEG")
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "cat" / "truncated.jpg").write_bytes(whole.getvalue()[:900])
    (root / "dog" / "text.png").write_bytes(b"not an image")
    save(Image.new("1", (12_000, 9_000)), root / "dog" / "bomb.png")
    save(noise(2), root / "owl" / "animation.gif")
    return {"cat/empty.png", "cat/truncated.jpg", "dog/text.png", "dog/bomb.png", "owl/animation.gif"}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_images_are_listed_and_warned_of(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    bad = bad_files(folders)
    result = run_ingest(folders, tmp_path / "ingest")
    quarantine = pd.read_parquet(tmp_path / "ingest" / "quarantine.parquet")
    assert set(quarantine["path"]) == bad
    assert result.unreadable == len(bad)
    reasons = dict(zip(quarantine["path"], quarantine["reason"], strict=True))
    assert "12000 x 9000 pixels, more than the 50 megapixels" in reasons["dog/bomb.png"]
    warning = found(run_validate(tmp_path / "ingest"), "nothing_quarantined")
    assert (warning.success, warning.severity, warning.unexpected, warning.checked) == (False, "warning", 5, 69)
    assert "dog/text.png is not a PNG, JPEG, WebP or BMP image." in warning.rows


def found(verdict: Verdict, name: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.name == name)


def failures(verdict: Verdict) -> dict[str, str]:
    return {finding.name: finding.severity for finding in verdict.findings if finding.success is False}


def test_sound_data_passes(tmp_path: Path) -> None:
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    verdict = run_validate(tmp_path / "ingest")
    assert failures(verdict) == {}
    assert found(verdict, "class_balance_kept").success is None
    assert (tmp_path / "validate" / "passed").exists()
    result = json.loads((tmp_path / "validate" / "result.json").read_text())
    assert (result["passed"], result["critical_failures"], result["warnings"]) == (True, 0, 0)
    assert {row["name"] for row in result["expectations"]} == {finding.name for finding in verdict.findings}
    page = (tmp_path / "validate" / "docs" / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert len(set(links)) == 4
    assert all((tmp_path / "validate" / "docs" / link).exists() for link in links)


def copy_into_splits(folders: Path) -> None:
    """Sort the class folders' images into given splits, five sixths of them for training."""
    for file in sorted(folders.glob("*/*.png")):
        if file.parent.name in CLASSES:
            split = ("train", "train", "val", "test")[int(file.stem) // 3 % 4]
            (folders / split / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.move(file, folders / split / file.parent.name / file.name)
    for name in CLASSES:
        (folders / name).rmdir()


def image_of(folders: Path, split: str, name: str) -> Path:
    return sorted((folders / split / name).glob("*.png"))[0]


def leak_test_image(folders: Path) -> None:
    save(Image.open(image_of(folders, "test", "cat")), folders / "train" / "cat" / "leak.bmp")


def leak_into_unlabeled(folders: Path) -> None:
    for file in (folders / "test").glob("*/*.png"):
        shutil.copy(file, folders / "unlabeled" / f"{file.parent.name}-{file.name}")


def two_labels(folders: Path) -> None:
    shutil.copy(image_of(folders, "train", "cat"), folders / "train" / "dog" / "also-a-cat.png")


def no_owls_to_validate(folders: Path) -> None:
    shutil.rmtree(folders / "val" / "owl")


def tiny_and_huge(folders: Path) -> None:
    save(noise(500, 7), folders / "train" / "cat" / "tiny.png")
    save(noise(501, 200).resize((200, 20)), folders / "train" / "cat" / "wide.png")


def black_frames(folders: Path) -> None:
    for level in range(30):
        save(Image.new("L", (12, 12), level), folders / "unlabeled" / f"black-{level}.png")


def one_black_frame(folders: Path) -> None:
    save(Image.new("RGB", (12, 12), (200, 0, 0)), folders / "train" / "cat" / "red.png")


def look_alike(folders: Path) -> None:
    smooth = noise(700, 24).resize((96, 96), Image.Resampling.BICUBIC)
    save(smooth, folders / "test" / "cat" / "photo.png")
    save(smooth.resize((72, 72)), folders / "train" / "cat" / "photo-smaller.png")


@pytest.mark.parametrize(
    ("break_data", "expected", "words"),
    [
        (leak_test_image, {"no_image_in_two_splits": "critical"}, "train/cat/leak.bmp is also test/cat/"),
        (leak_into_unlabeled, {"no_image_in_two_splits": "critical"}, "and 10 more"),
        (two_labels, {"one_label_an_image": "critical"}, "train/dog/also-a-cat.png is also train/cat/"),
        (no_owls_to_validate, {"enough_images_a_class": "critical"}, "owl in val has 0"),
        (tiny_and_huge, {"width_in_range": "critical", "height_in_range": "critical"}, "wide.png is 200 pixels wide"),
        (
            black_frames,
            {"few_constant_images": "critical", "no_constant_images": "warning"},
            "unlabeled/black-0.png has one color",
        ),
        (one_black_frame, {"no_constant_images": "warning"}, "train/cat/red.png has one color"),
        (
            look_alike,
            {"no_look_alike_in_two_splits": "warning"},
            "train/cat/photo-smaller.png looks like test/cat/photo.png in test",
        ),
    ],
)
def test_broken_data_is_found(
    tmp_path: Path, break_data: Callable[[Path], None], expected: dict[str, str], words: str
) -> None:
    folders = class_folders(tmp_path / "data")
    copy_into_splits(folders)
    break_data(folders)
    run_ingest(folders, tmp_path / "ingest")
    (tmp_path / "validate").mkdir()
    (tmp_path / "validate" / "passed").write_text("of an earlier run")
    verdict = run_validate(tmp_path / "ingest")
    assert failures(verdict) == expected
    assert any(words in found(verdict, name).sentence() for name in expected)
    assert all(len(finding.rows) <= 20 for finding in verdict.findings)
    critical = "critical" in expected.values()
    assert (tmp_path / "validate" / "passed").exists() is not critical
    assert (tmp_path / "versions.jsonl").exists() is not critical
    page = (tmp_path / "validate" / "docs" / "index.html").read_text()
    assert all(name in page for name in expected)


def test_unknown_labels_in_a_manifest_are_found(tmp_path: Path) -> None:
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    path = tmp_path / "ingest" / "manifest.parquet"
    manifest = pd.read_parquet(path)
    wrong = manifest[manifest["split"] == "train"].index[:2]
    manifest.loc[wrong[0], "label"] = 7
    manifest.loc[wrong[1], "label"] = pd.NA
    manifest.to_parquet(path)
    finding = found(run_validate(tmp_path / "ingest"), "known_labels")
    assert (finding.severity, finding.unexpected) == ("critical", 2)
    expected = [f"{manifest['path'][wrong[0]]} has unknown label 7", f"{manifest['path'][wrong[1]]} has no label"]
    assert finding.rows == expected


def test_class_balance_is_compared_with_the_version_before(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    first = run_ingest(folders, tmp_path / "ingest").dataset["fingerprint"]
    assert run_validate(tmp_path / "ingest").previous is None
    for seed in range(400, 430):
        save(noise(seed), folders / "cat" / f"{seed}.png")
    run_ingest(folders, tmp_path / "ingest")
    verdict = run_validate(tmp_path / "ingest")
    finding = found(verdict, "class_balance_kept")
    assert verdict.previous == first
    assert (finding.success, finding.severity) == (False, "warning")
    assert finding.rows == ["cat moved by 0.222", "dog moved by 0.111", "owl moved by 0.111"]
    assert (tmp_path / "validate" / "passed").exists()
    assert found(run_validate(tmp_path / "ingest", max_class_shift=0.3), "class_balance_kept").success


# ---------------------------------------------------------------- as processes

NO_NETWORK = """
import socket

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise RuntimeError(f"a stage wanted to reach {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
"""
SMALL = [
    *("project.name=tiny", "ingest.source=data/tiny", "ingest.image_size=8", "ingest.max_unreadable=0.2"),
    *("ingest.split.val=0.2", "ingest.split.test=0.2", "validate.min_per_class=1"),
]


def project(folder: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", folder)
    override_params(SMALL, folder / "params.yaml")
    class_folders(folder / "data" / "tiny")
    return folder


def environment(folder: Path) -> dict[str, str]:
    (folder / "guard").mkdir(exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(NO_NETWORK)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "REFLUX"))}
    # DVC starts `python`: it must be the one that runs the tests.
    path = os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]])
    (folder / "temporary").mkdir(exist_ok=True)
    clean["TMPDIR"] = str(folder / "temporary")
    return clean | {"PYTHONPATH": f"{folder / 'guard'}{os.pathsep}{ROOT}", "PATH": path}


def stage(name: str, folder: Path, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    command = [*prefix, sys.executable, "-m", f"components.{name}"]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=120
    )


def journal(folder: Path, name: str) -> list[dict[str, Any]]:
    journals = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / ".reflux" / "outbox").glob("*/journal.jsonl")
    ]
    return max((j for j in journals if j[0]["name"] == name), key=lambda j: j[0]["time_ms"])


def test_both_stages_run_offline_and_say_what_they_found(tmp_path: Path) -> None:
    folder = project(tmp_path)
    bad_files(folder / "data" / "tiny")
    done = stage("ingest", folder)
    assert done.returncode == 0, done.stderr
    assert "of 3 classes\n5 unreadable, listed in artifacts/ingest/quarantine.parquet" in done.stdout
    lines = journal(folder, "ingest")
    assert {k: v for line in lines if line["op"] == "metrics" for k, v in line["values"].items()}[
        "ingest/quarantined"
    ] == 5
    facts = json.loads((folder / "artifacts/ingest/dataset.json").read_text())
    assert [line["digest"] for line in lines if line["op"] == "dataset"] == [facts["fingerprint"]]

    done = stage("validate", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Warning: nothing_quarantined (5 of 69: " in done.stdout
    lines = journal(folder, "validate")
    logged = {k: v for line in lines if line["op"] == "metrics" for k, v in line["values"].items()}
    assert (logged["validate/critical_failures"], logged["validate/warnings"]) == (0, 1)
    assert [Path(line["path"]).name for line in lines if line["op"] == "artifact"] == ["result.json", "docs"]
    assert list((folder / "temporary").iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        ".reflux",
        "artifacts",
        "data",
        "guard",
        "params.yaml",
        "temporary",
    ]


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "artifacts" / "ingest").iterdir())


def test_too_many_unreadable_images_stop_the_run_and_are_listed(tmp_path: Path) -> None:
    folder = project(tmp_path)
    bad_files(folder / "data" / "tiny")
    override_params(["ingest.max_unreadable=0.05"], folder / "params.yaml")
    done = stage("ingest", folder)
    assert done.returncode == 2
    assert "Error: 5 of 69 images in data/tiny can't be used (7.25%, and ingest.max_unreadable is 5.00%)" in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(folder) == ["quarantine.parquet"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (shutil.rmtree, "Error: ingest.source data/tiny does not exist"),
        (lambda data: [shutil.rmtree(f) for f in data.iterdir()], "Error: data/tiny holds no images"),
        (lambda data: save(noise(900), data / "emu" / "1.png"), "Error: data/tiny has one image of emu (emu/1.png)"),
    ],
)
def test_data_that_can_not_be_used_is_one_sentence_and_nothing_half_written(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    folder = project(tmp_path)
    spoil(folder / "data" / "tiny")
    done = stage("ingest", folder)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(folder) == []


def test_full_disk_is_one_sentence_and_nothing_half_written(tmp_path: Path) -> None:
    folder = project(tmp_path)
    override_params(["ingest.image_size=64"], folder / "params.yaml")
    limit = 200_000  # bytes a file may have: the journal fits, 64 images of 12 kB don't
    done = subprocess.run(
        [sys.executable, "-m", "components.ingest"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    assert "Error: No space left on the disk to write artifacts/ingest" in done.stderr
    assert outputs(folder) == []


# Root may write everywhere, unless it gives that capability up.
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.skipif(bool(WITHOUT_PRIVILEGE) and not shutil.which("setpriv"), reason="root may write everywhere")
def test_missing_write_permission_is_one_sentence(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "artifacts" / "ingest").mkdir(parents=True)
    (folder / "artifacts" / "ingest").chmod(0o500)
    done = stage("ingest", folder, WITHOUT_PRIVILEGE)
    assert done.returncode == 2
    assert "Error: No permission to write artifacts/ingest" in done.stderr
    assert outputs(folder) == []


@pytest.mark.skipif(bool(WITHOUT_PRIVILEGE) and not shutil.which("setpriv"), reason="root may read everything")
def test_missing_read_permission_is_one_sentence(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "data" / "tiny" / "cat").chmod(0)
    done = stage("ingest", folder, WITHOUT_PRIVILEGE)
    (folder / "data" / "tiny" / "cat").chmod(0o700)
    assert done.returncode == 2
    assert "Error: No permission to read data/tiny/cat" in done.stderr


def test_a_stopped_ingest_leaves_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path)
    for seed in range(30):
        save(noise(seed, 800), folder / "data" / "tiny" / "owl" / f"big-{seed}.png", compress_level=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "components.ingest"], cwd=folder, env=environment(folder), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (folder / "artifacts/ingest/.building").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert outputs(folder) == []
    assert journal(folder, "ingest")[-1]["status"] == "KILLED"


@pytest.mark.slow
def test_under_dvc_a_critical_failure_stops_before_training_and_leaves_the_report(tmp_path: Path) -> None:
    folder = project(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(ROOT / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__"))
    copy_into_splits(folder / "data" / "tiny")
    leak_test_image(folder / "data" / "tiny")

    def dvc(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dvc", *arguments]
        env = environment(folder) | {"DVC_NO_ANALYTICS": "1"}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)

    assert dvc("init", "--no-scm").returncode == 0
    assert dvc("config", "core.check_update", "false").returncode == 0
    small = ["pretrain.model=resnet8", "pretrain.weights=random", "finetune.epochs=1", "finetune.image_size=16"]
    override_params([*small, "finetune.freeze_batch_norm=false"], folder / "params.yaml")
    done = dvc("repro", "finetune")
    assert done.returncode != 0
    assert "Error: The data fails 1 critical expectation: no_image_in_two_splits (2 of 65: " in done.stderr
    assert "train/cat/leak.bmp is also test/cat/" in done.stderr
    validated = folder / "artifacts" / "validate"
    assert (validated / "docs" / "index.html").exists()
    assert json.loads((validated / "result.json").read_text())["critical_failures"] == 1
    assert not (validated / "passed").exists()
    assert not (folder / "artifacts" / "finetune").exists()

    (folder / "data" / "tiny" / "train" / "cat" / "leak.bmp").unlink()
    done = dvc("repro", "finetune")
    assert done.returncode == 0, done.stderr
    assert (validated / "passed").exists()
    assert (folder / "artifacts" / "finetune" / "model.safetensors").exists()
    assert "didn't change, skipping" in dvc("repro", "finetune").stdout
