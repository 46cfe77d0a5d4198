"""Tiny projects and tiny inputs of stages, for tests that run them."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reflux.components.core.params.file import override_params

ROOT = Path(__file__).parents[1]
PACKAGE = "infra/package"  # holds the package reflux, in this project and in its copies
CODE = ("components", "flows", "infra")
SETTINGS = ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")
TINY = """
    ingest.source=data/shapes project.name=shapes registry.model_name=shapes-student ingest.image_size=16
    pretrain.model=resnet20 pretrain.weights=random finetune.strategy=full
    finetune.image_size=16 finetune.epochs=8 finetune.batch_size=8 finetune.lr=0.002 finetune.layer_decay=1
    finetune.freeze_batch_norm=false
    student.image_size=16 student.steps=40 student.batch_size=32 student.eval_every=20
    label.views=2 label.batch_size=64 label.proof=8 compress.ships=onnx evaluate.bootstrap=100 evaluate.latency_runs=20
    registry.gates.accuracy.min=0.5 registry.gates.worst_class_recall.min=0.1 registry.gates.size_kb.max=400
    registry.gates.latency_ms_p95.max=1000
"""

TRAINING = """
    pretrain.model=resnet8 pretrain.weights=random finetune.strategy=lp-ft finetune.image_size=16 finetune.epochs=2
    finetune.layer_decay=1 finetune.probe_steps=10 student.image_size=12 student.steps=20 student.batch_size=16
    student.eval_every=10 label.views=2 label.proof=8 run.threads=1
"""


def make_tiny_project(folder: Path) -> Path:
    """Write a copy of this project whose dataset and budget are tiny, so that the whole pipeline takes seconds."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in SETTINGS:
        shutil.copy(ROOT / name, folder / name)
    rng = np.random.default_rng(0)
    for split, count in {"train": 20, "val": 10, "test": 20, "unlabeled": 5}.items():
        for kind in ("flat", "wave", "check"):
            images = folder / "data" / "shapes" / split / ("" if split == "unlabeled" else kind)
            images.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                picture(kind, rng).save(images / f"{kind}-{index}.png")
    override_params(TINY.split(), folder / "params.yaml")
    return folder


def pack(folder: Path) -> None:
    """Put the pictures of class folders into one NumPy archive."""
    files = sorted(folder.glob("[!u]*/*/*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(folder.with_suffix(".npz"), images=images, labels=np.array([file.parent.name for file in files]))


def picture(kind: str, rng: np.random.Generator) -> Image.Image:
    """Draw an image of a class of the tiny project."""
    x, y = np.meshgrid(np.arange(16), np.arange(16))
    shapes = {
        "flat": x * 8,
        "wave": 128 + 100 * np.sin(x * 1.2 + rng.uniform(0, 6)),
        "check": (x // 3 + y // 3) % 2 * 200,
    }
    return Image.fromarray(np.clip(shapes[kind] + rng.normal(0, 15, (16, 16)), 0, 255).astype(np.uint8))


def make_workspace(folder: Path, *overrides: str, splits: dict[str, int], count: int) -> Path:
    """Write what ingest leaves of dark and bright images, and params: ``splits`` maps each split to its seed."""
    for split, seed in splits.items():
        write_shard(folder / "artifacts/ingest/shards" / split, count, seed, labeled=split != "unlabeled")
    for name in ("source-domain", "pretrain-source"):
        (folder / "artifacts/ingest" / name).mkdir()
    facts = {"classes": ["dark", "bright"], "image_size": 12, "channels": 1, "mean": [0.4], "std": [0.3]}
    (folder / "artifacts/ingest/images.json").write_text(json.dumps(facts))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    override_params(list(overrides), folder / "params.yaml")
    return folder


def training_workspace(folder: Path, test_seed: int = 3) -> Path:
    """Write the inputs of the stages from pretrain to control, and a budget of seconds."""
    splits = {"train": 0, "val": 1, "unlabeled": 2, "test": test_seed}
    return make_workspace(folder, *TRAINING.split(), splits=splits, count=40)


def write_source(folder: Path) -> Path:
    """Write what ingest leaves of ``pretrain.source``, a dataset of three levels of gray, into a workspace."""
    source = folder / "artifacts/ingest/pretrain-source"
    for seed, (split, count) in enumerate({"train": 60, "val": 30, "test": 30}.items(), 30):
        write_shard(source / "shards" / split, count, seed, classes=3)
    facts = {"classes": ["dark", "middling", "bright"], "image_size": 12, "channels": 1, "mean": [0.4], "std": [0.3]}
    (source / "images.json").write_text(json.dumps(facts))
    named = {"name": "levels", "source": "data/levels", "fingerprint": "0" * 64}
    (source / "dataset.json").write_text(json.dumps(facts | named))
    return folder


def ids(split: str) -> np.ndarray:
    """The ids of a split's images, in the working folder."""
    return np.load(f"artifacts/ingest/shards/{split}/ids.npy")


def pictures(split: str) -> dict[bytes, int]:
    """The label of each image of a split, by its pixels, in the working folder."""
    images, labels = (np.load(f"artifacts/ingest/shards/{split}/{name}.npy") for name in ("images", "labels"))
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


def watched(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[dict[str, Any]]:
    """Watch a module's function: a list that gets the arguments of each call by name, and its ``result``."""
    calls, function = [], getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        calls.append(inspect.signature(function).bind(*args, **kwargs).arguments | {"result": result})
        return result

    monkeypatch.setattr(module, name, call)
    return calls


def run_stage(stage: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a stage as a process that knows no server."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "REFLUX"))}
    command = [sys.executable, "-m", f"reflux.components.stages.{stage}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder under a name of its own; returns what it prints."""
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Wait until a condition gives something true, which is returned; a busy machine may take long."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
    return result


def write_shard(folder: Path, count: int, seed: int, labeled: bool = True, classes: int = 2) -> None:
    """Write a split of dark and bright images, or of more levels of gray."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 60, (count, 12, 12, 1)) + 120 // (classes - 1) * labels[:, None, None, None]
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images.astype(np.uint8))
    np.save(folder / "labels.npy", labels if labeled else np.full(count, -1))
    np.save(folder / "ids.npy", np.sort(rng.integers(0, 2**63, count, np.uint64)))


def example(page: str, named: str) -> str:
    """The block of Python on a page of the documentation that has a name in it."""
    text = (ROOT / "infra/docs/pages" / page).read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if named in block]
    return block
