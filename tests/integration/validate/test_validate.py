"""Validation of ingested data: sound data passes, broken data is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from components.validate.findings import Finding
from components.validate.validate import Verdict, validate
from tests.datasets import (
    bad_files,
    class_folders,
    copy_into_splits,
    image_of,
    leak_test_image,
    noise,
    run_ingest,
    save,
)


def run_validate(out: Path, **changes: Any) -> Verdict:
    options: dict[str, Any] = {"min_per_class": 1, "min_size_px": 8, "max_size_px": 100, "near_duplicate_bits": 8}
    files = [out / "manifest.parquet", out / "quarantine.parquet", out / "dataset.json", out.parent / "validate"]
    return validate(
        *files, out.parent / "versions.jsonl", **(options | {"max_constant": 0.1, "max_class_shift": 0.1} | changes)
    )


def finding_of(verdict: Verdict, name: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.name == name)


def failures(verdict: Verdict) -> dict[str, str]:
    return {finding.name: finding.severity for finding in verdict.findings if finding.success is False}


def test_sound_data_passes(tmp_path: Path) -> None:
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    verdict = run_validate(tmp_path / "ingest")
    assert failures(verdict) == {}
    assert finding_of(verdict, "class_balance_kept").success is None
    assert (tmp_path / "validate" / "passed").exists()
    result = json.loads((tmp_path / "validate" / "result.json").read_text())
    assert (result["passed"], result["critical_failures"], result["warnings"]) == (True, 0, 0)
    assert {row["name"] for row in result["expectations"]} == {finding.name for finding in verdict.findings}
    page = (tmp_path / "validate" / "docs" / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert len(set(links)) == 4
    assert all((tmp_path / "validate" / "docs" / link).exists() for link in links)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_images_are_warned_of(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    bad_files(folders)
    run_ingest(folders, tmp_path / "ingest")
    warning = finding_of(run_validate(tmp_path / "ingest"), "nothing_quarantined")
    assert (warning.success, warning.severity, warning.unexpected, warning.checked) == (False, "warning", 5, 69)
    assert "dog/text.png is not a PNG, JPEG, WebP or BMP image." in warning.rows


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
    assert any(words in finding_of(verdict, name).sentence() for name in expected)
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
    finding = finding_of(run_validate(tmp_path / "ingest"), "known_labels")
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
    finding = finding_of(verdict, "class_balance_kept")
    assert verdict.previous == first
    assert (finding.success, finding.severity) == (False, "warning")
    assert finding.rows == ["cat moved by 0.222", "dog moved by 0.111", "owl moved by 0.111"]
    assert (tmp_path / "validate" / "passed").exists()
    assert finding_of(run_validate(tmp_path / "ingest", max_class_shift=0.3), "class_balance_kept").success
