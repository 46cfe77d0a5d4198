"""A tiny dataset of gray images with a trained teacher, student and control: the input of compress and evaluate."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from reflux.components.core.data.shards import open_shard
from reflux.components.core.params.file import load_params, override_params
from reflux.components.core.runtime import history
from reflux.components.core.runtime.stage import Stage
from reflux.components.modalities.image.models import pixel_model

ROOT = Path(__file__).parents[1]
CLASSES = ["dark", "middling", "bright"]
STORED, SEEN = 14, 12


def write_split(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    # Some are between two classes, so that models differ in their predictions.
    levels = 60 * labels + rng.integers(-35, 36, count)
    images = (rng.integers(35, 100, (count, STORED, STORED, 1)) + levels[:, None, None, None]).clip(0, 255)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images.astype(np.uint8))
    np.save(folder / "labels.npy", labels)
    np.save(folder / "ids.npy", np.sort(rng.integers(0, 2**63, count, np.uint64)))


def write_model(artifacts: Path, stage: str, name: str, size: int, channels: int, steps: int) -> None:
    torch.manual_seed(len(stage))
    train = open_shard(artifacts / "ingest/shards/train")
    model = pixel_model.pixel_model(name, CLASSES, size, channels, [0.4] * channels, [0.2] * channels).train()
    pixels, labels = torch.from_numpy(np.array(train.images)).permute(0, 3, 1, 2), torch.from_numpy(train.labels)
    optimizer, rows = torch.optim.AdamW(model.parameters(), 3e-3), []
    for step in range(steps):
        loss = F.cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        row = {"step": step + 1, "images": 60 * (step + 1), "lr": 3e-3, "images_per_s": 100.0}
        rows.append(row | {"train_loss": loss.item(), "val_loss": loss.item(), "val_accuracy": 0.5})
    pixel_model.save(model, artifacts / stage / "model.safetensors")
    history.write(artifacts / stage / "history.parquet", {"first": rows[: steps // 2], "second": rows[steps // 2 :]})


def make_trained(folder: Path) -> Path:
    """Write what the stages before compress leave, with models that train in a second."""
    artifacts = folder / "artifacts"
    for seed, (split, count) in enumerate({"train": 60, "val": 40, "test": 257}.items()):
        write_split(artifacts / "ingest/shards" / split, count, seed)
    domain = artifacts / "ingest/source-domain"
    for seed, (split, count) in enumerate({"train": 30, "test": 20}.items(), 10):
        write_split(domain / "shards" / split, count, seed)
    for seed, split in enumerate(("train", "val", "test"), 20):
        write_split(artifacts / "ingest/pretrain-source/shards" / split, 10, seed)
    (domain / "dataset.json").write_text(json.dumps({"name": "charts", "counts": {"train": 30, "test": 20}}))
    facts = {"name": "grays", "source": "data/grays", "classes": CLASSES, "image_size": STORED, "channels": 1}
    facts |= {"mean": [0.4], "std": [0.2], "counts": {"train": 60, "unlabeled": 0, "val": 40, "test": 257}}
    facts["fingerprints"] = {split: split[0] * 64 for split in facts["counts"]}
    (artifacts / "ingest/dataset.json").write_text(json.dumps(facts))
    rows = [
        {"path": f"grays/{row}.png", "split": split, "row": row, "sha256": f"{content:016x}{'0' * 48}"}
        | {"slice:camera": f"camera {row % 3}"}
        for split in ("train", "val", "test")
        for row, content in enumerate(open_shard(artifacts / "ingest/shards" / split).ids.tolist())
    ]
    # Rows of a table have no order that a shard must share.
    pq.write_table(pa.Table.from_pylist(rows[::-1]), artifacts / "ingest/manifest.parquet")
    write_model(artifacts, "finetune", "resnet20", 16, 3, steps=40)
    rounds = [{"val_accuracy": 0.7, "pseudo_labels": 0, "confidence": None, "kept": False}]
    rounds += [{"val_accuracy": 0.75, "pseudo_labels": 31, "confidence": 0.625, "kept": True}]
    (artifacts / "finetune/rounds.json").write_text(json.dumps(rounds))
    write_model(artifacts, "distill", "resnet8", SEEN, 1, steps=40)
    write_model(artifacts, "control", "resnet8", SEEN, 1, steps=16)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    quick = ["evaluate.latency_runs=20", "evaluate.bootstrap=200", "run.threads=1"]
    override_params([*quick, "compress.ships=onnx"], folder / "params.yaml")
    return folder


def run_stages(folder: Path) -> None:
    """Run compress and evaluate as processes."""
    for stage in ("compress", "evaluate"):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "REFLUX"))}
        command = [sys.executable, "-m", f"reflux.components.stages.{stage}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr


def run_here(name: str, main: Callable[[Stage], None], *overrides: str) -> None:
    """Run a stage in this process, in the working folder."""
    stage = Stage(name, override_params(list(overrides)) if overrides else load_params())
    stage.out("").mkdir(parents=True, exist_ok=True)
    main(stage)
