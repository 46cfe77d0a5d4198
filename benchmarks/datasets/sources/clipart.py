"""Clip art by subject: Debian's ``openclipart-png`` (public domain), in class folders of PNG, no splits.

Color and black on white, with transparency, 32 to 24,967 pixels, drawn by hundreds of people, filed by hand: classes
overlap and some pictures are in two. What nobody has filed is the unlabeled part.
"""

import shutil
from pathlib import Path

PACKAGE = {"openclipart-png": "1:0.18+dfsg-19"}
CLASSES = ("animals", "buildings", "food", "geography", "people", "plants", "recreation", "tools", "transportation")


def build(package: Path, out: Path) -> None:
    """Write ``<subject>/…/<name>.png``, and ``unlabeled/``."""
    art = package / "usr/share/openclipart/png"
    for subject in (*CLASSES, "unsorted"):
        for file in sorted((art / subject).rglob("*.png")):
            if not file.is_symlink():
                target = out / ("unlabeled" if subject == "unsorted" else subject) / file.relative_to(art / subject)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
