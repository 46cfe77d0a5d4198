"""Every contender's answers on the test split, each from the runtime it would be used in."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from components.core import exporting, loop
from components.core.errors import UserError
from components.core.exporting import Logits, Pixels
from components.core.models import PixelModel

_CHUNK = 1024
_BATCH = 256
# EfficientNet-Lite0 at 80 pixels on two cores: 752 images/s, against 576 at 512 images, which leave the cache.
_TEACHER_BATCH = 128


def answers(
    images: Pixels,
    teacher: PixelModel,
    student: PixelModel,
    control: PixelModel,
    files: Mapping[str, Path],
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, Logits]:
    """Logits of teacher, student, control and each shipped file.

    The teacher answers as it did when it labelled: on ``device``, in bfloat16 where the hardware has it. All others
    get the very pixels a shipped file gets, on the CPU in full precision, because they are compared with it.

    Args:
        images: uint8 [N, H, W, C], as stored.
        teacher: the fine-tuned teacher.
        student: what the files were made from.
        control: the same network, trained without a teacher.
        files: the shipped files by kind: ``pt2``, or ONNX.
        device: where the teacher runs.
        advance: is told the number of images that one contender has answered.

    Returns:
        By contender, [N, classes] in the images' order.

    Raises:
        UserError: a contender's logits are not finite.
    """
    teacher.to(device)
    runs: dict[str, Callable[[Pixels], Logits]] = {
        "student": partial(exporting.forward, student),
        "control": partial(exporting.forward, control),
        **{kind: exporting.reload(path) for kind, path in files.items()},
    }
    parts: dict[str, list[Logits]] = {name: [] for name in ("teacher", *runs)}
    for begin in range(0, len(images), _CHUNK):
        chunk = np.array(images[begin : begin + _CHUNK])
        for i in range(0, len(chunk), _TEACHER_BATCH):
            part = chunk[i : i + _TEACHER_BATCH]
            parts["teacher"].append(loop.predict(teacher, part, device).float().cpu().numpy())
            advance(len(part))
        pixels = exporting.feed(chunk, student.spec)
        for name, run in runs.items():
            parts[name] += [run(pixels[i : i + _BATCH]) for i in range(0, len(pixels), _BATCH)]
            advance(len(chunk))
    found = {name: np.concatenate(part) for name, part in parts.items()}
    for name, logits in found.items():
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        if broken:
            raise UserError(
                f"The {name} answers {broken} of {len(images)} test images with logits that are not finite: "
                "train it again with a lower learning rate (lr)."
            )
    return found


def require_same_predictions(student: Logits, shipped: Logits, path: Path) -> None:
    """Refuse a file that predicts another class than the student on any test image, ties aside.

    Raises:
        UserError: it does.
    """
    rows = exporting.disagreements(student, shipped)
    if len(rows):
        raise UserError(
            f"{path} is not the student: it predicts another class on {len(rows)} of {len(student)} test images; "
            "delete it and run `reflux run` to compress again."
        )
