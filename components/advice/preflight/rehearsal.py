"""The export of the student, rehearsed before its training with weights that are random."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reflux.components.core.contract import made
from reflux.components.core.data.shards import Pixels
from reflux.components.core.export import program
from reflux.components.modalities.image.models.pixel_model import PixelModel, parameter_count
from reflux.components.stages.compress.ship import ship

_IMAGES = 8
_NOISE = 0.1


def rehearse(student: PixelModel, ships: str, max_logit_difference: float) -> dict[str, Any]:
    """Export a student as ``compress`` will, and prove its files.

    Args:
        student: untrained; it is changed.
        ships: ``compress.ships``.
        max_logit_difference: as in the params, for logits of about 1.

    Returns:
        ``size_bytes`` of each file that can ship, and ``params``.

    Raises:
        UserError: it can't be exported, or a file is not the student.
    """
    spec = student.spec
    shape = (_IMAGES, spec.in_chans, spec.image_size, spec.image_size)
    pixels: Pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    as_if_trained(student, pixels)
    scale = max(1.0, float(np.abs(program.forward(student, pixels)).max()))
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder, Path(file.name).name) for kind, file in made(ships).items()}
        ship(student, pixels, pixels, paths, max_logit_difference * scale)
        sizes = {kind: paths[kind].stat().st_size for kind in paths if kind != "pt2"}
        return {"size_bytes": sizes, "params": parameter_count(student)}


@torch.no_grad()
def as_if_trained(model: PixelModel, pixels: Pixels) -> None:
    """Move a new network off its first values, in place; it ends in eval mode.

    Zeros and ones are what an exporter may leave out, and BatchNorm that has seen no image lets the activations of deep
    networks grow without bound.
    """
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter.add_(_NOISE * torch.randn_like(parameter))
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # keep this batch's statistics alone
    model.train()(torch.from_numpy(pixels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
