"""Labeled datasets from elsewhere: ``ingest.source_domain``, of the same classes, and ``pretrain.source``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reflux.components.core.contract import LABELED_SPLITS
from reflux.components.core.data.shards import UNLABELED, open_shard
from reflux.components.core.errors import UserError, listed
from reflux.components.stages.ingest.items import Source

_SHOWN = 3
_KINDS = {"train": "training", "val": "validation"}


def in_order_of(classes: Sequence[str] | None, source: Source, path: Path) -> Source:
    """Give a source domain's classes the order that the dataset's have.

    Args:
        classes: of the dataset; None for the dataset itself, which keeps its own order.
        source: not yet read.
        path: its own, for the message.

    Raises:
        UserError: it has other classes.
    """
    if classes is None:
        return source
    missing, unknown = ([name for name in one if name not in other] for one, other in _both(classes, source.classes))
    if missing or unknown:
        parts = [f"lacks {listed(missing, _SHOWN)}"] * bool(missing)
        parts += [f"has {listed(unknown, _SHOWN)}, which the dataset has not"] * bool(unknown)
        raise UserError(
            f"ingest.source_domain = {path} {' and '.join(parts)}: a source domain has the dataset's classes, by name; "
            "rename its classes, leave images out, or name another one."
        )
    labels = [classes.index(name) for name in source.classes] + [UNLABELED]  # the last belongs to label -1
    items = (replace(item, label=labels[item.label]) for item in source.items)
    return replace(source, classes=list(classes), items=items)


def _both(one: Sequence[str], other: Sequence[str]) -> tuple[tuple[Sequence[str], Sequence[str]], ...]:
    return (one, other), (other, one)


def refuse_shared_images(other: Path, dataset: Path, named: str, learned: Sequence[str]) -> None:
    """Refuse another dataset that teaches images which the dataset validates or tests on.

    Args:
        other: its shards.
        dataset: those of the dataset.
        named: the param and the other dataset's path, for the message.
        learned: the other dataset's splits that teach or choose weights.

    Raises:
        UserError: it does.
    """
    taught = np.concatenate([open_shard(other / split).ids for split in learned])
    kinds = " and ".join(_KINDS[split] for split in learned)
    for split in LABELED_SPLITS[1:]:
        shared = int(np.isin(taught, open_shard(dataset / split).ids).sum())
        if shared:
            raise UserError(
                f"{shared:,} {kinds} images of {named} are in the dataset's {split} split, too: what is trained on "
                "can't judge; take them out of one of the two."
            )
