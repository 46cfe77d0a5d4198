"""scikit-learn's digits (Alpaydin and Kaynak 1998, UCI, CC BY 4.0): class folders of PNG without splits.

Gray, 8 x 8 pixels of 17 levels, 1,797 handwritten digits of 43 people, in the scikit-learn package itself.
"""

from pathlib import Path

import numpy as np
from PIL import Image


def build(out: Path) -> None:
    """Write ``<digit>/<number>.png``."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits().images, load_digits().target
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = out / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(folder / f"{number:04}.png")
