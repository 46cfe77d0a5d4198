"""Icons of KDE's Oxygen theme by what they stand for: Debian's ``oxygen-icon-theme`` (LGPL-3), in class folders of PNG.

Color with transparency, 48 x 48 pixels, no splits. Actions are ten times as many as devices, and some pictures are in
the theme twice, in two classes too.
"""

import shutil
from pathlib import Path

PACKAGE = {"oxygen-icon-theme": "5:6.1.0+dfsg-2"}
CLASSES = ("actions", "apps", "devices", "mimetypes", "places", "status")


def build(package: Path, out: Path) -> None:
    """Write ``<context>/<name>.png``."""
    for context in CLASSES:
        (out / context).mkdir(parents=True)
        for file in sorted((package / "usr/share/icons/oxygen/base/48x48" / context).glob("*.png")):
            shutil.copy(file, out / context)
