"""Tiny datasets of images, and the stages that look at data, run on them."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reflux.components.core.params.file import override_params
from reflux.components.stages.ingest.ingest import Ingested, ingest
from tests.workspaces import PACKAGE, ROOT

CLASSES = ("cat", "dog", "owl")
NO_NETWORK = """
import socket

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise RuntimeError(f"a stage wanted to reach {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
"""
SMALL = [
    *("project.name=tiny", "ingest.source=data/tiny", "ingest.image_size=8", "ingest.max_quarantined=0.2"),
    *("ingest.split.val=0.2", "ingest.split.test=0.2"),
]


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
    options: dict[str, Any] = {"image_size": 8, "channels": 3, "val": 0.2, "test": 0.2, "max_quarantined": 0.2}
    options |= {"storage": "auto", "decoded_max_gb": 8, "min_size_px": 8, "max_megapixels": 50, "threads": 2}
    result = ingest(source, out, **(options | changes))
    for name in ("source-domain", "pretrain-source"):  # what the stage leaves there is for those that name one
        (out / name).mkdir(exist_ok=True)
    return result


def bad_files(root: Path) -> set[str]:
    whole = io.BytesIO()
    noise(1, 64).save(whole, "JPEG")
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "cat" / "truncated.jpg").write_bytes(whole.getvalue()[:900])
    (root / "dog" / "text.png").write_bytes(b"not an image")
    save(Image.new("1", (12_000, 9_000)), root / "dog" / "bomb.png")
    (root / "owl" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    return {"cat/empty.png", "cat/truncated.jpg", "dog/text.png", "dog/bomb.png", "owl/phone.heic"}


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


def project(folder: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
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
    return clean | {"PYTHONPATH": f"{folder / 'guard'}{os.pathsep}{ROOT / PACKAGE}", "PATH": path}


def stage(name: str, folder: Path, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    command = [*prefix, sys.executable, "-m", f"reflux.components.stages.{name}"]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=120
    )


def journal(folder: Path, name: str) -> list[dict[str, Any]]:
    journals = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / ".reflux" / "outbox").glob("*/journal.jsonl")
    ]
    return max((j for j in journals if j[0]["name"] == name), key=lambda j: j[0]["time_ms"])
