"""The letters A to J in the fonts of Debian's packages, as notMNIST was made (Bulatov 2011), in class folders of PNG.

Gray, 28 x 28 pixels. Fonts of one family are all in training or all in test, drawn by a hash of the family's first
word ("Nimbus Sans" and "Nimbus Roman" stay together), so the test asks for letters in shapes that training has not
seen. The fonts are free software under licenses of their own (GPL, OFL, GUST, Bitstream Vera and others).
"""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Debian's packages of Latin fonts in many styles, and their versions in Debian 13.
PACKAGES = {
    "fonts-adf-accanthis": "0.20190904-3",
    "fonts-adf-baskervald": "0.20190904-3",
    "fonts-adf-berenis": "0.20190904-3",
    "fonts-adf-gillius": "0.20190904-3",
    "fonts-adf-ikarius": "0.20190904-3",
    "fonts-adf-irianis": "0.20190904-3",
    "fonts-adf-libris": "0.20190904-3",
    "fonts-adf-mekanus": "0.20190904-3",
    "fonts-adf-oldania": "0.20190904-3",
    "fonts-adf-romande": "0.20190904-3",
    "fonts-adf-solothurn": "0.20190904-3",
    "fonts-adf-switzera": "0.20190904-3",
    "fonts-adf-tribun": "0.20190904-3",
    "fonts-adf-universalis": "0.20190904-3",
    "fonts-adf-verana": "0.20190904-3",
    "fonts-aenigma": "0.0.20080511+dfsg-5",
    "fonts-averia-gwf": "1.00-3.1",
    "fonts-bwht": "0.1-4",
    "fonts-cabin": "1.5-3",
    "fonts-cantarell": "0.303.1-4",
    "fonts-comic-neue": "2.51-4",
    "fonts-dancingscript": "1.2-2",
    "fonts-dejavu-core": "2.37-8",
    "fonts-dosis": "1.7-3",
    "fonts-dustin": "20030517-14",
    "fonts-ebgaramond": "0.016+git20210310.42d4f9f2-1",
    "fonts-ecolier-court": "1.00-6",
    "fonts-essays1743": "2.100-5",
    "fonts-fantasque-sans": "1.8.0+git20220316+dfsg-2",
    "fonts-freefont-ttf": "20211204+svn4273-2",
    "fonts-georgewilliams": "20031023-3",
    "fonts-goudybookletter": "2010.07.03-7",
    "fonts-hack": "3.003-3",
    "fonts-humor-sans": "1.0-4",
    "fonts-isabella": "1.202-4",
    "fonts-junicode": "2.211+ds-1",
    "fonts-kristi": "20101220-1",
    "fonts-lato": "2.015-1",
    "fonts-levien-museum": "001.002-5",
    "fonts-liberation": "1:2.1.5-3",
    "fonts-lobster": "2.0-2.1",
    "fonts-lobstertwo": "2.0-2.1",
    "fonts-monofur": "1.0-3",
    "fonts-oldstandard": "2.2really-4",
    "fonts-open-sans": "1.11-2",
    "fonts-play": "1.002+20150307.1-0.1",
    "fonts-quattrocento": "1.1-2.1",
    "fonts-radisnoir": "0.9b-5",
    "fonts-roadgeek": "3.1-4",
    "fonts-rufscript": "010-6",
    "fonts-sil-charis": "6.200-1",
    "fonts-sil-gentiumplus": "6.200-1",
    "fonts-sjfonts": "2.1-2",
    "fonts-staypuft": "0.04-10",
    "fonts-texgyre": "20180621-6",
    "fonts-tuffy": "20120614-3",
    "fonts-urw-base35": "20200910-8",
    "fonts-vollkorn": "4.105-3",
    "fonts-yanone-kaffeesatz": "2.0+git20211102+ds-2",
}
LETTERS = "ABCDEFGHIJ"
SIZE, _DRAWN, _MARGIN = 28, 96, 2
_TEST_SHARE = 0.25


def build(package: Path, out: Path) -> None:
    """Write ``<split>/<letter>/<font>.png`` of every font in unpacked packages that has all ten letters."""
    files = [file for file in package.rglob("*") if file.suffix.lower() in (".ttf", ".otf")]
    seen: set[str] = set()
    for file in sorted(files, key=lambda path: (path.name, str(path))):
        if file.is_symlink() or file.name in seen:
            continue
        seen.add(file.name)
        font = _font(file)
        drawn = [_draw(font, letter) for letter in LETTERS] if font else []
        if font is None or not _is_alphabet(drawn):
            continue
        split = "test" if _is_test(str(font.getname()[0])) else "train"
        for letter, image in zip(LETTERS, drawn, strict=True):
            if image is not None:
                folder = out / split / letter
                folder.mkdir(parents=True, exist_ok=True)
                image.save(folder / f"{file.stem}.png")


def _font(file: Path) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(file), _DRAWN)
    except OSError:
        return None


def _draw(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image | None:
    """A letter, black on white, as large as the picture; None where the font draws nothing."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(letter))
    width, height = right - left, bottom - top
    if min(width, height) < 4 or max(width, height) > 4 * _DRAWN:
        return None
    side = max(width, height)
    canvas = Image.new("L", (side, side), 255)
    ImageDraw.Draw(canvas).text(((side - width) // 2 - left, (side - height) // 2 - top), letter, fill=0, font=font)
    picture = Image.new("L", (SIZE, SIZE), 255)
    inner = SIZE - 2 * _MARGIN
    picture.paste(canvas.resize((inner, inner), Image.Resampling.BOX), (_MARGIN, _MARGIN))
    return picture


def _is_alphabet(drawn: list[Image.Image | None]) -> bool:
    """Whether a font has ten letters that differ: fonts of symbols or other scripts draw one box for each it lacks."""
    pixels = {image.tobytes() for image in drawn if image is not None}
    return len(pixels) == len(LETTERS) and all(np.asarray(image).std() > 20 for image in drawn)


def _is_test(family: str) -> bool:
    digest = hashlib.sha256(family.split(maxsplit=1)[0].lower().encode()).digest()
    return digest[0] < 256 * _TEST_SHARE
