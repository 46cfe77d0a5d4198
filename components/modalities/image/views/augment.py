"""Augmented views of images, rendered from draws that depend only on (seed, image id, view)."""

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from reflux.components.core.data.draws import Uint64s, draws
from reflux.components.core.errors import UserError
from reflux.components.modalities.image.views.transforms import TRANSFORMS

DRAWS = 11
_COLOR_AND_ROTATION = 4
_FAR = 2**32  # past the draws of mixing, whose rejection takes as many as it needs
_CACHED = 2**19  # values that stay in a core's cache as float32
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow


def view_draws(seed: int, ids: Uint64s, views: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """All draws of :func:`render`, float64 [N, 15] or more.

    They are the first 11 of :func:`draws`, 4 for color and rotation, and those of the project's transforms.
    """
    parts = [draws(seed, ids, views, DRAWS), draws(seed, ids, views, _COLOR_AND_ROTATION, first=_FAR)]
    for each in TRANSFORMS.values():
        parts.append(draws(seed, ids, views, each.columns.stop - each.columns.start, each.first))
    return np.concatenate(parts, axis=1)


def to_pixels(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images [N, H, W, C] as pixels [N, C, H, W] uint8, in channels-last memory."""
    tensor = torch.tensor(images)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2)


def render(
    images: npt.NDArray[np.uint8],
    uniform: npt.NDArray[np.float64],
    shift: float,
    flip: bool,
    crop_scale: float,
    erase: float,
    device: torch.device,
    rotate_deg: float = 0.0,
    color: float = 0.0,
    **own: Any,
) -> Tensor:
    """Render one augmented view of each image.

    Args:
        images: uint8 [N, H, W, C].
        uniform: random draws, float64 [N, 15] or more; see :func:`view_draws`. Without color, rotation and transforms
            the first 11 do.
        shift: the largest shift, as a share of the image's side; the border is filled with black.
        flip: mirror half of the views left to right.
        crop_scale: the smallest area of the random crop, which is resized to the whole; 1 takes no crop.
        erase: the probability of a black rectangle over 2 to 25 % of the image (Zhong et al. 2020).
        device: where to render.
        rotate_deg: the largest rotation, either way, in degrees; what it bares repeats the border's pixels.
        color: brightness, contrast and saturation are each multiplied by a factor from 1 - color to 1 + color.
        own: the strengths of the project's transforms, by name.

    Returns:
        Pixels uint8 [N, C, H, W].

    Raises:
        UserError: a transform of the project returns something else.
    """
    rows = max(1, _CACHED // images[0].size)
    if device.type == "cpu" and len(images) > rows:  # 128 images of 144 pixels, with color: 34 ms instead of 94
        settings = (shift, flip, crop_scale, erase, device, rotate_deg, color)
        parts = (slice(first, first + rows) for first in range(0, len(images), rows))
        return torch.cat([render(images[part], uniform[part], *settings, **own) for part in parts])
    pixels = to_pixels(images, device)
    side = pixels.shape[-1]
    if crop_scale < 1 or rotate_deg:
        pixels = _crop_and_rotate(pixels, uniform, crop_scale, rotate_deg)
    if color:
        pixels = _jitter(pixels, 1 + color * (uniform[:, DRAWS + 1 : DRAWS + 4] * 2 - 1))
    if shift or flip:
        reach = shift * side
        offsets = np.rint((uniform[:, 0:2] * 2 - 1) * reach).astype(np.int64)
        mirrored = (uniform[:, 2] < 0.5) & flip
        pixels = _shift_flip(pixels, offsets, mirrored)
    if erase:
        pixels = _erase(pixels, uniform, erase)
    for name, strength in own.items():
        if strength:
            pixels = _transform(name, pixels, uniform[:, DRAWS + _COLOR_AND_ROTATION :], strength)
    return pixels


def _transform(name: str, pixels: Tensor, uniform: npt.NDArray[np.float64], strength: float) -> Tensor:
    known = TRANSFORMS[name]
    changed = known.apply(pixels, uniform[:, known.columns], strength)
    if (changed.dtype, changed.shape) != (pixels.dtype, pixels.shape):
        what = f"{changed.dtype} of shape {tuple(changed.shape)} for uint8 of shape {tuple(pixels.shape)}"
        raise UserError(f"The transform {name} returns {what}: let it return the type and shape that it gets.")
    return changed


def _shift_flip(pixels: Tensor, offsets: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_]) -> Tensor:
    """Mirror images where ``mirrored`` [N] says so, then shift each by its (down, right) offsets [N, 2]."""
    count, channels, side, _ = pixels.shape
    edge = int(np.abs(offsets).max())
    flip = torch.from_numpy(mirrored).to(pixels.device)[:, None, None, None]
    images = pixels.permute(0, 2, 3, 1)
    framed = F.pad(torch.where(flip, images.flip(2), images), (0, 0, edge, edge, edge, edge))
    # A line of the result is contiguous in its framed image: copying lines is several times as fast as pixels.
    width = side + 2 * edge
    lines = np.arange(count)[:, None] * width + np.arange(edge, edge + side) + offsets[:, :1]
    begins = torch.from_numpy((lines * width + edge + offsets[:, 1:]) * channels).flatten().to(pixels.device)
    length = side * channels
    pieces = framed.reshape(-1).as_strided((framed.numel() - length + 1, length), (1, 1))
    return pieces.index_select(0, begins).view(count, side, side, channels).permute(0, 3, 1, 2)


def _crop_and_rotate(pixels: Tensor, uniform: npt.NDArray[np.float64], crop_scale: float, rotate_deg: float) -> Tensor:
    """A random square crop, rotated and resized to the whole (Szegedy et al. 2015, without the change of aspect)."""
    scale = np.sqrt(crop_scale + uniform[:, 3] * (1 - crop_scale))
    center = (uniform[:, 4:6] * 2 - 1) * (1 - scale[:, None])
    theta = np.zeros((len(scale), 2, 3))
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    if rotate_deg:
        angle = np.deg2rad(rotate_deg * (uniform[:, DRAWS] * 2 - 1))
        theta[:, 0, 0] = theta[:, 1, 1] = scale * np.cos(angle)
        theta[:, 1, 0] = scale * np.sin(angle)
        theta[:, 0, 1] = -theta[:, 1, 0]
    theta[:, :, 2] = center
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(pixels.shape), align_corners=False).to(pixels.device)
    cropped = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cropped.round_().to(torch.uint8)


def _jitter(pixels: Tensor, factors: npt.NDArray[np.float64]) -> Tensor:
    """Multiply brightness, contrast and saturation by factors [N, 3], which leaves gray images their saturation.

    These are torchvision's ColorJitter in one linear step for the whole batch, with nothing clipped in between: each
    pixel is blended with its gray value and with the image's mean gray value. Sums of whole numbers are exact, and
    products are rounded before they are added, so a view has the same bits in every batch.
    """
    brightness, contrast, saturation = torch.from_numpy(factors.T).to(pixels.device)
    planes = pixels.contiguous().float()
    weights = _LUMA if planes.shape[1] == 3 else (1.0,)
    sums = planes.sum((2, 3), dtype=torch.float64)
    gray = reduce(Tensor.add_, (weight * planes[:, channel] for channel, weight in enumerate(weights)))
    mean = reduce(Tensor.add_, (weight * sums[:, channel] for channel, weight in enumerate(weights)))
    share = brightness * contrast * saturation
    share_of_gray = brightness * contrast * (1 - saturation)
    rest = brightness * (1 - contrast) * mean / planes[0, 0].numel()
    gray.mul_(_each(share_of_gray)).add_(_each(rest))
    planes.mul_(_each(share)[:, None]).add_(gray[:, None]).round_().clamp_(0, 255)
    return planes.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _each(values: Tensor) -> Tensor:
    return values.float()[:, None, None]


def _erase(pixels: Tensor, uniform: npt.NDArray[np.float64], probability: float) -> Tensor:
    side, device = pixels.shape[-1], pixels.device
    wanted, tall, wide, down, across = uniform[:, 6:11].T
    height = np.rint(side * (0.15 + 0.35 * tall)).astype(np.int64)
    width = np.rint(side * (0.15 + 0.35 * wide)).astype(np.int64)
    top = np.floor(down * (side - height + 1)).astype(np.int64)
    left = np.floor(across * (side - width + 1)).astype(np.int64)
    line = np.arange(side)
    rows = (line >= top[:, None]) & (line < (top + height)[:, None]) & (wanted < probability)[:, None]
    columns = (line >= left[:, None]) & (line < (left + width)[:, None])
    hidden = torch.from_numpy(rows[:, :, None] & columns[:, None, :]).to(device)
    return pixels.masked_fill(hidden[:, None], 0)
