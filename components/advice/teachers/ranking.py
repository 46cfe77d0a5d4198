"""The ranking: a linear probe on frozen features of every candidate at every image size, and what each costs.

Images are of train and val alone; the test split is not opened.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import timm
import torch

from reflux.components.advice.plan.probe import FEWEST, Correct, Labels, leave_one_out
from reflux.components.advice.plan.times import measured, run_seconds, stage_seconds
from reflux.components.advice.teachers.candidates import Candidate, forbids_commerce
from reflux.components.advice.teachers.features import features, missing
from reflux.components.advice.teachers.result import Ranking, Row
from reflux.components.core.data.shards import UNLABELED, Pixels, Shard
from reflux.components.core.errors import UserError
from reflux.components.core.params.sections import Params
from reflux.components.core.significance import mcnemar, share_bound
from reflux.components.modalities.image.models.first_stages import whole_and_stages
from reflux.components.modalities.image.models.pixel_model import network, parameter_count
from reflux.components.modalities.image.models.small_nets import small_net

SIZES = (80, 128, 224)
MOST = 1000  # images that are asked about: an accuracy is then known to ±3 points; the probe's time grows with its cube
_BYTES = 2**29  # of their pixels, in memory
ENOUGH = 300  # images; rather than ask about fewer, networks are left out that take long
# Shares of the time: until when speeds are measured, what features may take as foreseen, and as it turns out.
_MEASURING, _FORESEEN, _COMPUTING = 0.4, 0.35, 0.45

Key = TypeVar("Key")
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Cost:
    """Seconds of a candidate at an image size: ``image`` for one, and ``run`` of a whole pipeline run."""

    image: float
    run: float


def sample(shard: Shard, most: int = MOST) -> tuple[Pixels, Labels]:
    """Up to ``most`` of the labeled images, in the order of their hashes: pixels uint8 [N, S, S, C] and labels [N].

    Raises:
        UserError: they are too few to ask.
    """
    labeled = np.flatnonzero(shard.labels != UNLABELED)
    if len(labeled) < FEWEST:
        raise UserError(f"There are {len(labeled)} labeled images in train and val: a probe needs {FEWEST} or more.")
    most = min(most, max(FEWEST, _BYTES // math.prod(shard.images.shape[1:])))
    rows = labeled[np.argsort(shard.ids[labeled], kind="stable")][:most]
    return shard.images[rows], shard.labels[rows]


def costs(
    pairs: Sequence[tuple[Candidate, int]],
    params: Params,
    counts: Mapping[str, int],
    classes: int,
    minutes: float,
    advance: Advance,
) -> tuple[dict[tuple[Candidate, int], Cost], list[str]]:
    """Time each candidate at each image size, with what was timed before; where time runs out, the rest is left out.

    Args:
        pairs: candidates with image sizes.
        params: all of them.
        counts: images in train, val, test and unlabeled.
        classes: how many the dataset has.
        minutes: for all that there is to do.
        advance: called for each pair.

    Returns:
        The costs, and what is left out and why.
    """
    timed: dict[tuple[Candidate, int], Cost] = {}
    left_out: list[str] = []
    end = time.monotonic() + _MEASURING * 60 * minutes
    for candidate, size in pairs:
        if timed and time.monotonic() > end:
            left_out.append(f"{candidate.name} at {size} pixels: there was no time to measure it")
        else:
            try:
                timed[candidate, size] = _cost(candidate.model, size, params, counts, classes)
            except UserError as error:
                left_out.append(f"{candidate.name} at {size} pixels: {error}")
        advance(1)
    return timed, left_out


def _cost(model: str, size: int, params: Params, counts: Mapping[str, int], classes: int) -> Cost:
    settings = {
        "pretrain": params.pretrain.model_copy(update={"model": model}),
        "finetune": params.finetune.model_copy(update={"image_size": size}),
    }
    chosen = params.model_copy(update=settings)
    speeds = measured(chosen, classes)
    return Cost(speeds["teacher inference"], run_seconds(stage_seconds(chosen, counts, speeds)))


def affordable(costs: Mapping[Key, float], images: int, seconds: float) -> tuple[list[Key], int]:
    """Choose what the time is for: rather fewer images than fewer candidates, as long as these are ``ENOUGH``.

    Args:
        costs: seconds an image of each candidate.
        images: that there are.
        seconds: for all of them.

    Returns:
        The candidates without those that take too long, one at least, the quickest first; and the images for each.
    """
    kept = sorted(costs, key=lambda key: costs[key])
    enough = min(images, ENOUGH)
    while len(kept) > 1 and seconds < enough * sum(costs[key] for key in kept):
        kept.pop()
    count = int(seconds / sum(costs[key] for key in kept))
    return kept, max(enough, min(images, count))


def sizes_of(candidate: Candidate, sizes: Sequence[int]) -> list[int]:
    """The image sizes to ask a candidate at: its own alone if it takes no other."""
    config = (
        None if small_net(candidate.model) else timm.models.get_pretrained_cfg(whole_and_stages(candidate.model)[0])
    )
    return [config.input_size[-1]] if config and config.fixed_input_size else list(sizes)


def recalls(right: Correct, labels: Labels, classes: int) -> tuple[float | None, ...]:
    """The share of each class's images that was answered right; None of a class that has none."""
    return tuple(float(right[labels == label].mean()) if (labels == label).any() else None for label in range(classes))


def parameters_of(model: str, classes: int) -> int:
    """The parameters of a network with a head for so many classes, without their memory."""
    with torch.device("meta"):
        return parameter_count(network(model, classes, 3))


def row(
    candidate: Candidate, size: int, right: Correct, labels: Labels, best: Correct, cost: Cost, classes: Sequence[str]
) -> Row:
    """Describe a candidate at an image size, by whether it was ``right`` about each image, and the ``best`` was."""
    count, n = int(right.sum()), len(right)
    return Row(
        name=candidate.name,
        model=candidate.model,
        weights=candidate.weights,
        license=candidate.license,
        image_size=size,
        accuracy=count / n,
        low=share_bound(count, n, "lower", 0.975),
        high=share_bound(count, n, "upper", 0.975),
        recalls=recalls(right, labels, len(classes)),
        p_value=mcnemar(right, best),
        parameters=parameters_of(candidate.model, len(classes)),
        seconds=1000 * cost.image,
        run_seconds=cost.run,
        commercial=not forbids_commerce(candidate.license),
        knows=candidate.classes == tuple(classes),
    )


def rank(
    timed: Mapping[tuple[Candidate, int], Cost],
    pixels: Pixels,
    labels: Labels,
    classes: Sequence[str],
    minutes: float,
    device: torch.device,
    left_out: Sequence[str],
    progress: Callable[[int], Advance],
) -> Ranking:
    """Ask a linear probe on the frozen features of each candidate, as far as the time allows.

    Each image is classified by a ridge regression that was fitted to all others, as in
    :mod:`reflux.components.advice.plan.probe`.

    Args:
        timed: the candidates with their image sizes, and what they cost.
        pixels: uint8 [N, S, S, C], in an order that chance made.
        labels: int64 [N].
        classes: the dataset's.
        minutes: for all that there is to do.
        device: where features are computed.
        left_out: what was left out before.
        progress: gets the number of images that must be computed, and returns what is called as they are.

    Raises:
        UserError: weights are not those of their network.
    """
    seconds = {pair: cost.image for pair, cost in timed.items()}
    pairs, count = affordable(seconds, len(labels), _FORESEEN * 60 * minutes)
    late = [f"{c.name} at {size} pixels: it takes too long" for c, size in timed if (c, size) not in pairs]
    pixels, labels = pixels[:count], labels[:count]
    new = {pair: missing(*pair, pixels, device) for pair in pairs}
    advance, computed = progress(sum(new.values())), 0
    right: dict[tuple[Candidate, int], Correct] = {}
    end = time.monotonic() + _COMPUTING * 60 * minutes
    for candidate, size in pairs:
        if right and new[candidate, size] and time.monotonic() > end:  # the machine has become busier
            late.append(f"{candidate.name} at {size} pixels: no time was left; the next call goes on with it")
            continue
        asked = features(candidate, size, pixels, device, advance)
        right[candidate, size], _ = leave_one_out(asked, labels, asked)
        computed += new[candidate, size]
    best = max(right.values(), key=lambda answers: int(answers.sum()))
    rows = [row(*pair, answers, labels, best, timed[pair], classes) for pair, answers in right.items()]
    rows.sort(key=lambda each: (-each.accuracy, each.run_seconds))
    return Ranking(tuple(rows), tuple(classes), count, computed, (*left_out, *late))
