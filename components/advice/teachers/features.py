"""Features of a frozen network, kept by its weights, the image size and the image: each is computed once."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reflux.components.advice.plan.probe import Floats, features_of
from reflux.components.advice.teachers.candidates import Candidate
from reflux.components.core.artifacts import atomic, sha256_file
from reflux.components.core.data.shards import Pixels
from reflux.components.core.runtime import installed
from reflux.components.core.runtime.lineage import code_sha256
from reflux.components.modalities.image.models.pixel_model import PixelModel, adapted
from reflux.components.stages.pretrain.weights import pretrained

KEPT = Path(".reflux/teachers/features")
_AT_ONCE = 64  # images between two reports of progress

Hashes = npt.NDArray[np.uint64]


def features(
    candidate: Candidate, image_size: int, pixels: Pixels, device: torch.device, advance: Callable[[int], None]
) -> Floats:
    """The features of images, of which those that are not kept are computed.

    Args:
        candidate: the network.
        image_size: of its input, in pixels.
        pixels: uint8 [N, S, S, C].
        device: where to compute.
        advance: called with the number of images computed.

    Returns:
        float64 [N, D].

    Raises:
        UserError: the weights are not the network's, or it can't take such images.
    """
    file = _file(candidate, image_size, device)
    hashes = hashes_of(pixels)
    known, kept = _read(file)
    missing = ~np.isin(hashes, known)
    if missing.any():
        new = compute(candidate, image_size, pixels[missing], device, advance)
        known = np.concatenate([known, hashes[missing]])
        kept = np.concatenate([kept.reshape(-1, new.shape[1]), new])
        with atomic(file) as temporary:
            np.savez(temporary, hashes=known, features=kept)
    order = np.argsort(known)
    return kept[order[np.searchsorted(known, hashes, sorter=order)]].astype(np.float64)


def missing(candidate: Candidate, image_size: int, pixels: Pixels, device: torch.device) -> int:
    """How many of the images have no features yet."""
    known, _ = _read(_file(candidate, image_size, device))
    return int((~np.isin(hashes_of(pixels), known)).sum())


def compute(
    candidate: Candidate, image_size: int, pixels: Pixels, device: torch.device, advance: Callable[[int], None]
) -> npt.NDArray[np.float32]:
    """Compute the features of images, float32 [N, D]; see :func:`features`."""
    model = (
        adapted(_network(candidate, sha256_file(candidate.file)), ("a", "b"), image_size, pixels.shape[-1])
        .to(device)
        .eval()
    )
    parts = []
    for begin in range(0, len(pixels), _AT_ONCE):
        part = pixels[begin : begin + _AT_ONCE]
        parts.append(features_of(model, part, device).astype(np.float32))
        advance(len(part))
    return np.concatenate(parts)


def hashes_of(pixels: Pixels) -> Hashes:
    """The first eight bytes of each image's sha256, uint64 [N]: of its pixels as ``ingest`` stored them."""
    shape = str(pixels.shape[1:]).encode()
    digests = (hashlib.sha256(shape + image.tobytes()).digest()[:8] for image in pixels)
    return np.frombuffer(b"".join(digests), np.uint64)


@lru_cache(maxsize=1)  # one network is asked at several sizes, one after the other
def _network(candidate: Candidate, _sha256: str) -> PixelModel:
    return pretrained(candidate.model, candidate.weights, candidate.file, candidate.name)


def _file(candidate: Candidate, image_size: int, device: torch.device) -> Path:
    weights = [candidate.model, candidate.weights == "timm", sha256_file(candidate.file)]
    computed_by = [code_sha256("advice.teachers.features"), installed.builds("pretrain"), device.type]
    key = hashlib.sha256(json.dumps([weights, image_size, computed_by]).encode()).hexdigest()
    return KEPT / f"{key[:32]}.npz"


def _read(file: Path) -> tuple[Hashes, npt.NDArray[np.float32]]:
    try:
        with np.load(file, allow_pickle=False) as kept:
            return kept["hashes"], kept["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not computed yet, or damaged
        return np.zeros(0, np.uint64), np.zeros((0, 0), np.float32)
