"""Validation of ingested data: sound data passes, broken data is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from reflux.components.core.errors import UserError
from reflux.components.stages.validate import expected
from reflux.components.stages.validate.findings import Finding
from reflux.components.stages.validate.validate import Verdict, validate
from tests.datasets import (
    CLASSES,
    bad_files,
    class_folders,
    copy_into_splits,
    noise,
    run_ingest,
    save,
)


def run_validate(out: Path, **changes: Any) -> Verdict:
    options: dict[str, Any] = {"near_duplicate_bits": 8, "max_class_shift": 0.1}
    files = [out / "manifest.parquet", out / "quarantine.csv", out / "dataset.json", out.parent / "validate"]
    return validate(*files, out.parent / "versions.jsonl", **(options | changes))


def finding_of(verdict: Verdict, name: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.name == name)


def failures(verdict: Verdict) -> dict[str, str]:
    """What failed but that images are few, which they are in all of these tests."""
    failed = {finding.name: finding.severity for finding in verdict.findings if finding.success is False}
    assert failed.pop("recalls_can_be_known", "warning") == "warning"
    return failed


def test_the_unlabeled_images_are_named_only_where_they_teach_the_teacher(tmp_path: Path) -> None:
    """What the teacher depends on in place of them: `dvc.yaml`."""
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    named = tmp_path / "validate" / "unlabeled.json"
    run_validate(tmp_path / "ingest")
    assert json.loads(named.read_text()) == {"fingerprint": None}
    run_validate(tmp_path / "ingest", teaching=True)
    facts = json.loads((tmp_path / "ingest" / "dataset.json").read_text())
    assert json.loads(named.read_text()) == {"fingerprint": facts["fingerprints"]["unlabeled"]}


def test_sound_data_passes(tmp_path: Path) -> None:
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    verdict = run_validate(tmp_path / "ingest")
    assert failures(verdict) == {}
    assert finding_of(verdict, "class_balance_kept").success is None
    assert (tmp_path / "validate" / "passed").exists()
    result = json.loads((tmp_path / "validate" / "result.json").read_text())
    assert (result["passed"], result["critical_failures"], result["warnings"]) == (True, 0, 1)
    thin = finding_of(verdict, "recalls_can_be_known")
    assert thin.severity == "warning"
    assert thin.rows[0] == "3 validation images of dog: its recall is known to ±37 points"
    assert {row["name"] for row in result["expectations"]} == {finding.name for finding in verdict.findings}
    page = (tmp_path / "validate" / "docs" / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert len(set(links)) == 6
    assert all((tmp_path / "validate" / "docs" / link).exists() for link in links)


def test_labels_are_taken_at_their_word(tmp_path: Path) -> None:
    """Nothing tells a wrong label from a right one: here half of the cats and dogs have changed places."""
    folders = class_folders(tmp_path / "data")
    for cat, dog in zip(*(sorted((folders / name).iterdir())[:10] for name in ("cat", "dog")), strict=True):
        cat.rename(folders / "dog" / f"cat-{cat.name}")
        dog.rename(folders / "cat" / f"dog-{dog.name}")
    assert run_ingest(folders, tmp_path / "ingest").left_out == {}
    assert failures(run_validate(tmp_path / "ingest")) == {}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_images_are_warned_of(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    bad_files(folders)
    run_ingest(folders, tmp_path / "ingest")
    warning = finding_of(run_validate(tmp_path / "ingest"), "nothing_quarantined")
    assert (warning.success, warning.severity, warning.unexpected, warning.checked) == (False, "warning", 5, 69)
    assert "dog/text.png is text and no image." in warning.rows


def no_owls_to_validate(folders: Path) -> None:
    shutil.rmtree(folders / "val" / "owl")


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
        (no_owls_to_validate, {"every_class_in_each_split": "critical"}, "owl in val has 0"),
        (black_frames, {"no_constant_images": "warning"}, "unlabeled/black-0.png has one color"),
        (one_black_frame, {"no_constant_images": "warning"}, "train/cat/red.png has one color"),
        (
            look_alike,
            {"no_test_image_looks_trained_on": "warning"},
            "in train (2 bits apart); if these are copies, the test's accuracy is up to 6.2 points too high",
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


def test_what_is_merely_thin_is_a_warning_that_says_what_it_costs(tmp_path: Path) -> None:
    run_ingest(class_folders(tmp_path / "data", 12), tmp_path / "ingest", val=0.1, test=0.1)
    verdict = run_validate(tmp_path / "ingest")
    assert failures(verdict) == {}
    assert (tmp_path / "validate" / "passed").exists()
    thin = finding_of(verdict, "recalls_can_be_known")
    assert (thin.severity, thin.checked, thin.unexpected) == ("warning", 6, 6)
    assert "1 test image of cat: its recall is known to ±40 points" in thin.rows


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
    expected = {f"{manifest['path'][wrong[0]]} has unknown label 7", f"{manifest['path'][wrong[1]]} has no label"}
    assert set(finding.rows) == expected


def test_a_manifest_with_an_image_in_two_splits_or_of_two_labels_stops_the_run(tmp_path: Path) -> None:
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    path = tmp_path / "ingest" / "manifest.parquet"
    manifest = pd.read_parquet(path)
    first = {split: manifest.index[manifest["split"] == split][0] for split in ("train", "test", "unlabeled")}
    manifest.loc[first["train"], "label"] = (manifest["label"][first["test"]] + 1) % 3
    manifest.loc[list(first.values()), "sha256"] = "0" * 64
    manifest.to_parquet(path)
    verdict = run_validate(tmp_path / "ingest")
    assert failures(verdict) == {"no_image_in_two_splits": "critical", "one_label_an_image": "critical"}
    train, test, unlabeled = manifest["path"][list(first.values())]
    assert f"{test} is also {train} in train" in finding_of(verdict, "no_image_in_two_splits").rows
    assert f"{unlabeled} is also {test} in test" in finding_of(verdict, "no_image_in_two_splits").rows
    assert finding_of(verdict, "one_label_an_image").unexpected == 2
    assert not (tmp_path / "validate" / "passed").exists()


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


def test_a_manifest_in_which_a_group_is_in_two_splits_stops_the_run(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data")
    rows = [f"{cls}/{file.name},{cls},p{int(file.stem) // 5}" for cls in CLASSES for file in (folders / cls).iterdir()]
    (folders / "all.csv").write_text("\n".join(["path,label,patient", *rows]))
    run_ingest(folders, tmp_path / "ingest", group="patient")
    sound = finding_of(run_validate(tmp_path / "ingest"), "no_group_in_two_splits")
    assert (sound.success, sound.severity, sound.checked) == (True, "critical", 12)
    assert (tmp_path / "validate" / "passed").exists()
    run_ingest(folders, tmp_path / "ingest")
    unchecked = finding_of(run_validate(tmp_path / "ingest"), "no_group_in_two_splits")
    assert (unchecked.success, unchecked.note) == (None, "ingest.group names no column of groups")
    manifest = pd.read_parquet(tmp_path / "ingest" / "manifest.parquet")
    manifest["group"] = ["p1", *["p2"] * (len(manifest) - 1)]
    manifest.to_parquet(tmp_path / "ingest" / "manifest.parquet")
    broken = finding_of(run_validate(tmp_path / "ingest"), "no_group_in_two_splits")
    assert (broken.success, broken.unexpected, broken.rows) == (False, 1, ["p2 is in test and train and val"])
    assert not (tmp_path / "validate" / "passed").exists()


def test_two_expectations_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_ingest(class_folders(tmp_path / "data"), tmp_path / "ingest")
    monkeypatch.setitem(expected.TABLES, "mine", expected.TABLES["files"])
    with pytest.raises(UserError, match="Two expectations are named nothing_quarantined"):
        run_validate(tmp_path / "ingest")
    assert not (tmp_path / "validate" / "result.json").exists()
