"""Two pictures of the data, for people: a few images of each class, and what was left out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reflux.components.core.data.shards import Pixels, Shard

CLASSES, IMAGES, LINES = 20, 10, 25
_SIDE, _GAP, _NAME, _LINE = 56, 6, 150, 20
_INK, _PAPER = "#2B3238", "white"
_LETTERS = 19  # of a class's name, which fit next to its images


def samples(shard: Shard, classes: Sequence[str], path: Path) -> None:
    """Draw the first images of each of the first 20 classes, one row per class, as a PNG."""
    drawn = classes[:CLASSES]
    step = _SIDE + _GAP
    sheet = Image.new("RGB", (_NAME + IMAGES * step, len(drawn) * step + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for label, name in enumerate(drawn):
        top = _GAP + label * step
        text = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
        pen.text((_GAP, top + _SIDE // 2), text, fill=_INK, font=font, anchor="lm")
        rows = np.flatnonzero(shard.labels == label)[:IMAGES]
        for place, pixels in enumerate(shard.images[rows]):
            sheet.paste(_fitted(pixels), (_NAME + place * step, top))
    sheet.save(path)


def quarantine(left_out: Sequence[tuple[str, str]], path: Path) -> None:
    """List the first 25 files that were left out, each with its reason, in a PNG."""
    lines = [f"{name}: {reason}" for name, reason in left_out[:LINES]] or ["Nothing was left out."]
    if len(left_out) > LINES:
        lines.append(f"and {len(left_out) - LINES:,} more, in quarantine.csv")
    sheet = Image.new("RGB", (_NAME + IMAGES * (_SIDE + _GAP), (len(lines) + 1) * _LINE), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, line in enumerate(lines):
        pen.text((_GAP, _LINE // 2 + place * _LINE), line, fill=_INK, font=font)
    sheet.save(path)


def _fitted(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    enlarged = max(image.size) < _SIDE
    return image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)
