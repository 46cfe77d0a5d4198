"""Cut-out color photographs with transparency: Debian's ``tuxpaint-stamps-default`` (GPL-2), in class folders of PNG.

20 to 2,348 pixels, a class for each of the larger subjects, very unequal. Drawings (``cartoon``, ``toys`` and the like)
are left out, and so are the mirrored copies, of which the split would have one on each side.
"""

import shutil
from pathlib import Path

PACKAGE = {"tuxpaint-stamps-default": "2025.03.31-1"}
CLASSES = ("animals", "clothes", "food", "household", "plants", "space", "vehicles")
_DRAWN = {"cartoon", "toys", "plastic", "armor"}


def build(package: Path, out: Path) -> None:
    """Write ``<subject>/<name>.png``."""
    stamps = package / "usr/share/tuxpaint/stamps"
    for subject in CLASSES:
        (out / subject).mkdir(parents=True)
        for file in sorted((stamps / subject).rglob("*.png")):
            inside = file.relative_to(stamps / subject)
            if not _DRAWN.intersection(inside.parts) and "mirror" not in file.stem:
                shutil.copy(file, out / subject / "-".join(inside.parts))
