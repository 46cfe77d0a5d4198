"""A set of class folders of which few training images keep their label, as teams have it that began to label."""

import hashlib
import shutil
from pathlib import Path


def keep_labels(folder: Path, per_class: int) -> None:
    """Move all but ``per_class`` training images of each class, drawn by a hash of their names, to ``unlabeled/``."""
    rest = folder / "unlabeled"
    rest.mkdir()
    for label in sorted((folder / "train").iterdir()):
        files = sorted(label.iterdir(), key=lambda file: hashlib.sha256(f"{label.name}/{file.name}".encode()).digest())
        for file in files[per_class:]:
            shutil.move(file, rest / f"{label.name}-{file.name}")
