"""A dataset four times larger than the memory goes through every stage that reads it."""

import io
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reflux.components.core.params.file import override_params
from tests.workspaces import PACKAGE, ROOT

# Limit of a process without its mapped files, which the kernel drops when memory is short: Python, torch and the ONNX
# exporter alone take two thirds of it.
LIMIT = 720 * 2**20
SIDE = 1024
COUNTS = {"train": 760, "unlabeled": 620, "val": 760, "test": 760}
STAGES = ("ingest", "pretrain", "finetune", "label", "distill", "control", "compress", "evaluate")
RECIPE = [
    *("ingest.source=data", f"ingest.image_size={SIDE}", "ingest.channels=1"),
    *("pretrain.model=resnet8", "pretrain.weights=random", "finetune.image_size=16", "finetune.epochs=1"),
    *("finetune.batch_size=8", "label.views=1", "label.batch_size=8", "label.proof=4", "student.image_size=16"),
    *("student.steps=20", "student.batch_size=8", "student.eval_every=20", "run.threads=1"),
    *("compress.max_logit_difference=1", "evaluate.bootstrap=100", "evaluate.latency_runs=20"),
]


def write_dataset(folder: Path) -> None:
    """Tiny pictures of two classes, which ingest enlarges."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, count in COUNTS.items():
        labels = np.arange(count) % 2
        files = []
        for label in labels:
            file = io.BytesIO()
            Image.fromarray((rng.integers(0, 120, (8, 8)) + 120 * label).astype(np.uint8)).save(file, "PNG")
            files.append({"bytes": file.getvalue()})
        pq.write_table(pa.table({"image": files, "label": labels}), folder / f"{split}.parquet")


def run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "REFLUX"))}
    # Arrow's own pools reserve a gigabyte of address space, which the limit counts, before the first byte is used.
    environment |= {"PYTHONPATH": str(ROOT / PACKAGE), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts a process's own memory on Linux alone")
@pytest.mark.parametrize("storage", ["decoded", "encoded"])
def test_a_dataset_four_times_larger_than_the_memory_trains(tmp_path: Path, storage: str) -> None:
    assert sum(COUNTS.values()) * SIDE**2 > 4 * LIMIT
    if shutil.disk_usage(tmp_path).free < 3 * sum(COUNTS.values()) * SIDE**2:
        pytest.skip("needs 8 GB of free disk")
    write_dataset(tmp_path / "data")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    override_params([*RECIPE, f"ingest.storage={storage}"], tmp_path / "params.yaml")
    for stage in STAGES:
        done = run(["-m", f"reflux.components.stages.{stage}"], tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    # The limit is one: a process that wants a whole split in its memory does not get it.
    for split in ("train", "val", "test"):
        folder = tmp_path / "artifacts/ingest/shards" / split
        assert (folder / "images.npy").exists() == (storage == "decoded")
        program = (
            f"from reflux.components.core.data.shards import *; open_shard(Path({str(folder)!r})).images[:].copy()"
        )
        assert "MemoryError" in run(["-c", program], tmp_path).stderr
    shutil.rmtree(tmp_path / "artifacts")
