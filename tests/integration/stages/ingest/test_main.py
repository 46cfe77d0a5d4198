"""Ingest as a process: offline, interrupted, and on a machine that lets it down."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from reflux.components.core.params.file import override_params
from tests.datasets import bad_files, environment, journal, noise, project, save, stage

pytestmark = pytest.mark.slow


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "artifacts" / "ingest").iterdir())


def test_it_runs_offline_and_reports_the_data(tmp_path: Path) -> None:
    folder = project(tmp_path)
    bad_files(folder / "data" / "tiny")
    done = stage("ingest", folder)
    assert done.returncode == 0, done.stderr
    assert "of 3 classes\nLeft out: 5 unreadable; listed in artifacts/ingest/quarantine.csv\n" in done.stdout
    lines = journal(folder, "ingest")
    assert {k: v for line in lines if line["op"] == "metrics" for k, v in line["values"].items()}[
        "ingest/quarantined"
    ] == 5
    facts = json.loads((folder / "artifacts/ingest/dataset.json").read_text())
    assert [line["digest"] for line in lines if line["op"] == "dataset"] == [facts["fingerprint"]]
    assert list((folder / "temporary").iterdir()) == []


def test_too_many_damaged_images_stop_the_run_and_are_listed(tmp_path: Path) -> None:
    folder = project(tmp_path)
    bad_files(folder / "data" / "tiny")
    override_params(["ingest.max_quarantined=0.05"], folder / "params.yaml")
    done = stage("ingest", folder)
    assert done.returncode == 2
    assert (
        "Error: 5 of 69 images in data/tiny can't be used (7.25%, and ingest.max_quarantined is 5.00%)" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert outputs(folder) == ["quarantine.csv"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (shutil.rmtree, "Error: ingest.source = data/tiny does not exist"),
        (lambda data: [shutil.rmtree(f) for f in data.iterdir()], "Error: data/tiny holds no images"),
        (lambda data: save(noise(900), data / "emu" / "1.png"), "has too few usable images in 1 of 4 classes, emu (1)"),
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
        [sys.executable, "-m", "reflux.components.stages.ingest"],
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
    big = folder / "data" / "tiny" / "owl" / "big.png"
    save(Image.new("RGB", (4000, 4000)), big)
    for copy in range(60):  # many seconds of decoding, that the stop falls into them on a busy machine too
        big.with_name(f"big-{copy}.png").write_bytes(big.read_bytes() + bytes([copy]))
    process = subprocess.Popen(
        [sys.executable, "-m", "reflux.components.stages.ingest"],
        cwd=folder,
        env=environment(folder),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (folder / "artifacts/ingest/.building").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130
    assert outputs(folder) == []
    assert journal(folder, "ingest")[-1]["status"] == "KILLED"
