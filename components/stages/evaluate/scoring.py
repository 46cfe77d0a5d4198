"""Predictions of every contender on the test split, each in the runtime that it would be used in."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reflux.components.core.data.shards import Images, Pixels, Shard, at_once
from reflux.components.core.errors import UserError
from reflux.components.core.export import program
from reflux.components.core.export.logits import Logits, disagreements
from reflux.components.core.export.network import load
from reflux.components.core.inference import predict
from reflux.components.core.runtime.world import ALONE, World
from reflux.components.modalities.image import stress
from reflux.components.modalities.image.models.pixel_model import ModelSpec, PixelModel
from reflux.components.modalities.image.preprocess import fit, resize

_CHUNK = 1024
_BATCH = 256
# Noise takes fifty times the bytes of the images.
_BYTES_TO_CORRUPT = 2**20


def predict_all(
    images: Images,
    teacher: Callable[[Pixels], Logits],
    models: Mapping[str, PixelModel],
    files: Mapping[str, Path],
    advance: Callable[[int], None],
    world: World = ALONE,
) -> dict[str, Logits]:
    """Logits of the teacher, of further models and of each shipped file.

    All but the teacher take the same pixels as a shipped file, on the CPU in full precision, as they are compared with
    it.

    Args:
        images: uint8 [N, H, W, C], as stored.
        teacher: stored images to logits, :func:`on_device` or :func:`one_by_one`.
        models: the student, its control and what else is compared, by name: networks of one kind.
        files: the shipped files by kind, each opened in its own runtime.
        advance: called with the number of images after each that one contender has predicted.
        world: the processes that share the images; each gets the logits of all.

    Returns:
        By contender, [N, classes] in the images' order.

    Raises:
        UserError: a contender's logits are not finite.
    """
    runs: dict[str, Callable[[Pixels], Logits]] = {
        **{name: partial(program.forward, model) for name, model in models.items()},
        **{kind: load(path).run for kind, path in files.items()},
    }
    parts: dict[str, list[Logits]] = {name: [] for name in ("teacher", *runs)}
    spec = next(iter(models.values())).spec
    mine, size = world.shard(len(images)), at_once(images, _CHUNK)
    for begin in mine[::size]:
        chunk = np.array(images[begin : min(begin + size, mine.stop)])
        for i in range(0, len(chunk), _BATCH):
            part = chunk[i : i + _BATCH]
            parts["teacher"].append(teacher(part))
            advance(len(part) * world.size)
        pixels = fit(chunk, spec.image_size, spec.in_chans)
        for name, run in runs.items():
            parts[name] += [run(pixels[i : i + _BATCH]) for i in range(0, len(pixels), _BATCH)]
            advance(len(chunk) * world.size)
    none = np.empty((0, len(spec.classes)), np.float32)
    own = {name: torch.from_numpy(np.concatenate([none, *part])) for name, part in parts.items()}
    whole: dict[str, Logits] = {name: world.all_gather(rows, len(images)).numpy() for name, rows in own.items()}
    for name, logits in whole.items():
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        if broken:
            raise UserError(
                f"The {name} gives {broken} of {len(images)} test images logits that are not finite: "
                "train it again with a lower learning rate (lr)."
            )
    return whole


def corrupted_accuracies(
    test: Shard,
    runs: Mapping[str, Callable[[Pixels], Logits]],
    spec: ModelSpec,
    advance: Callable[[int], None],
    world: World = ALONE,
) -> dict[str, dict[str, float]]:
    """Accuracy on the test images in each common corruption; ``runs`` take pixels as ``spec`` does, to logits.

    Returns:
        By contender, ``noise_accuracy`` and so on for each of ``stress.KINDS``, and their mean,
        ``corrupted_accuracy``.
    """
    right = torch.zeros(len(runs), len(stress.KINDS), dtype=torch.int64)
    mine = world.shard(len(test))
    few = max(1, min(_BATCH, _BYTES_TO_CORRUPT // (spec.image_size**2 * test.images.shape[3])))
    size = at_once(test.images, few)
    for begin in mine[::size]:
        rows = slice(begin, min(begin + size, mine.stop))
        resized = resize(test.images[rows], spec.image_size).transpose(0, 2, 3, 1)
        for kind, (_, images) in enumerate(stress.corrupted(resized, test.ids[rows])):
            pixels = fit(images, spec.image_size, spec.in_chans)
            for contender, run in enumerate(runs.values()):
                right[contender, kind] += int((run(pixels).argmax(axis=1) == test.labels[rows]).sum())
        advance((rows.stop - rows.start) * world.size)
    shares = (world.sum(right).double() / len(test)).tolist()
    return {
        name: {f"{kind}_accuracy": share for kind, share in zip(stress.KINDS, row, strict=True)}
        | {"corrupted_accuracy": sum(row) / len(row)}
        for name, row in zip(runs, shares, strict=True)
    }


def accuracies(images: Shard, teacher: PixelModel, file: Path, student: PixelModel) -> dict[str, float]:
    """The accuracies of a teacher and of the student's file that ships on further images; empty without any.

    Args:
        images: labeled.
        teacher: on its device.
        file: that ships.
        student: what it was made from.
    """
    if not len(images):
        return {}
    device = next(teacher.parameters()).device
    runs = {"teacher": on_device(teacher, device), "student": _stored(load(file).run, student.spec)}
    right, size = dict.fromkeys(runs, 0), at_once(images.images, _BATCH)
    for begin in range(0, len(images), size):
        rows = slice(begin, begin + size)
        pixels = np.asarray(images.images[rows])
        for name, run in runs.items():
            right[name] += int((run(pixels).argmax(axis=1) == images.labels[rows]).sum())
    return {name: count / len(images) for name, count in right.items()}


def _stored(run: Callable[[Pixels], Logits], spec: ModelSpec) -> Callable[[Pixels], Logits]:
    """Run a shipped file on images as they are stored."""
    return lambda images: run(fit(images, spec.image_size, spec.in_chans))


def on_device(model: PixelModel, device: torch.device) -> Callable[[Pixels], Logits]:
    """Run a model in torch, in the precision that it labels in: stored images [N, H, W, C] to logits."""

    def run(images: Pixels) -> Logits:
        logits: Logits = predict(model, images, device).float().cpu().numpy()
        return logits

    model.to(device)
    return run


def one_by_one(path: Path, threads: int) -> Callable[[Pixels], Logits]:
    """Run an ONNX file that takes one image on several threads: stored images [N, H, W, C] to logits.

    The teacher's file exists already, for its latency, and images that run next to each other need not wait for each
    other at every layer, as torch's threads do.
    """
    network = load(path, threads=1)

    def run(images: Pixels) -> Logits:
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        with ThreadPoolExecutor(threads) as pool:
            rows = range(len(pixels))
            return np.concatenate(list(pool.map(lambda row: network.run(pixels[row : row + 1]), rows)))

    return run


def require_same_predictions(student: Logits, shipped: Logits, path: Path) -> None:
    """Refuse a file that predicts another class than the student on any test image, ties aside.

    Raises:
        UserError: it does.
    """
    rows = disagreements(student, shipped)
    if len(rows):
        raise UserError(
            f"{path} is not the student: it predicts another class on {len(rows)} of {len(student)} test images; "
            "delete it and run `reflux run` to compress again."
        )
