"""Emoji in the nine groups of Unicode: those of Google and Microsoft to learn from, those of Twitter as the test.

Color with transparency, 64 and 256 pixels, PNG and WebP, very unequal classes (``flags`` is mostly rectangles, and
``people-body`` has four times the images of ``activities``), and a test split that somebody else drew. Pictures of
Noto Emoji (Google, Apache 2.0) and Twemoji (CC BY 4.0) are from npm's ``emoji-datasource-google`` and ``-twitter``,
Fluent Emoji (Microsoft, MIT) from ``@lobehub/fluent-emoji-3d``. Skin tones are left out: they repeat a picture.
"""

import json
import re
import shutil
from pathlib import Path

GOOGLE, TWITTER = ("emoji-datasource-google", "16.0.0"), ("emoji-datasource-twitter", "16.0.0")
MICROSOFT = ("@lobehub/fluent-emoji-3d", "1.1.0")


def build(google: Path, microsoft: Path, twitter: Path, out: Path) -> None:
    """Write ``train/<group>/<maker>-<code>.png`` (or ``.webp``) and ``test/<group>/twitter-<code>.png``."""
    for emoji in json.loads((google / "emoji.json").read_text(encoding="utf-8")):
        group = re.sub("[^a-z]+", "-", emoji["category"].lower())
        if group == "component":
            continue
        places = (
            ("train", "google", google / "img/google/64" / emoji["image"]),
            ("train", "microsoft", microsoft / "assets" / f"{emoji['unified'].lower()}.webp"),
            ("test", "twitter", twitter / "img/twitter/64" / emoji["image"]),
        )
        for split, maker, file in places:
            if file.is_file():
                folder = out / split / group
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / f"{maker}-{file.name}")
