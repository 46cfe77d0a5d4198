"""How different the source domain looks from the images that it is to help with."""

from collections.abc import Sequence

import numpy as np

from reflux.components.core.data.shards import Shard
from reflux.components.core.shift import NO_PREDICTIONS, Sample, ShiftTest, compare, sample, statistics

_ALPHA = 0.01


def compare_domains(source: Shard, target: Sequence[Shard], classes: Sequence[str]) -> list[ShiftTest]:
    """Test whether images of the source domain look like the dataset's, in all that the monitor compares, too.

    Args:
        source: its training images.
        target: the dataset's, with and without labels.
        classes: of both.
    """
    return compare(_sample([source], classes), _sample(target, classes), _ALPHA)


def _sample(shards: Sequence[Shard], classes: Sequence[str]) -> Sample:
    images, counts, _ = sample(shards, classes, np.zeros(0, np.uint64), seed=0)
    return Sample(tuple(classes), images.shape[1:], counts, statistics(images), *NO_PREDICTIONS)


def sentence(tests: Sequence[ShiftTest]) -> str:
    """What differs, the most different first, in words."""
    differing = sorted((test for test in tests if test.differs), key=lambda test: -test.distance)
    if not differing:
        return "the source domain looks like the dataset in all that was compared: adaptation may bring nothing"
    named = ", ".join(f"{test.name} ({test.distance:.2f})" for test in differing)
    return f"the source domain differs from the dataset in {named}; 0 is alike, 1 is nothing in common"
