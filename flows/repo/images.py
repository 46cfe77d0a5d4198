"""The dataset as it is now, compared with what ``ingest`` took of it: how many images there are, and which are new."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reflux.components.core.artifacts import ARTIFACTS, as_cell
from reflux.components.core.contract import LABELED_SPLITS, SPLITS
from reflux.components.core.errors import UserError
from reflux.components.core.params.sections import Ingest, Params

if TYPE_CHECKING:
    from reflux.components.stages.ingest.items import Item

_INGESTED = ARTIFACTS / "ingest"
_OWN_SPLIT = ""  # of an image that ingest gives one, by its content


@dataclass(frozen=True)
class Images:
    """The images of a dataset, not yet decoded.

    Attributes:
        counts: images in each split, as far as can be known before they are decoded.
        classes: their number.
        added: new and changed images, by the split that the dataset gives them.
        removed: images that ``ingest`` knew, and that are gone or changed, by their split.
        spared: the artifacts of ``ingest`` that stay as they are.
    """

    counts: Mapping[str, int]
    classes: int
    added: Mapping[str, int]
    removed: Mapping[str, int]
    spared: frozenset[str] = frozenset()

    def difference(self) -> str:
        """What is new and what is gone, in words; empty if there was nothing to compare with."""
        pairs = (("added", self.added), ("removed", self.removed))
        said = (f"{count:,} {split or 'labeled'} {word}" for word, each in pairs for split, count in each.items())
        return ", ".join(said)


def look(settings: Ingest) -> Images:
    """List a dataset, and compare it with what the last ``ingest`` left, if it left something.

    Raises:
        UserError: the dataset is not here, or is none.
    """
    from reflux.components.stages.ingest.source import open_source

    if not Path(settings.source).exists():  # DVC knows it
        raise UserError(
            f"ingest.source = {settings.source} is not here yet, so its images can't be counted: `reflux run` fetches "
            f"it, and so does `dvc pull {settings.source.rstrip('/')}.dvc`."
        )
    source = open_source(Path(settings.source), settings.slices, settings.group)
    items = list(source.items)
    counts = counts_of(Counter(item.split or _OWN_SPLIT for item in items), settings.split.val, settings.split.test)
    if not (_INGESTED / "manifest.parquet").is_file():
        return Images(counts, len(source.classes), {}, {})
    return _compared(items, source.classes, counts)


def counts_of_others(params: Params) -> dict[str, int]:
    """The labeled images of the datasets that are not the run's own; none of one that is not here.

    Returns:
        ``source_domain_train``, ``pretrain_train`` and so on, for each split.
    """
    from reflux.components.stages.ingest.source import open_source

    splits = params.ingest.split
    counts: dict[str, int] = {}
    for param, name in (("ingest.source_domain", "source_domain"), ("pretrain.source", "pretrain")):
        path = params.datasets.get(param)
        if path is not None and Path(path).exists():
            given = Counter(item.split or _OWN_SPLIT for item in open_source(Path(path)).items)
            found = counts_of(given, splits.val, splits.test)
            counts |= {f"{name}_{split}": found[split] for split in LABELED_SPLITS}
    return counts


def counts_of(given: Mapping[str, int], val: float, test: float) -> dict[str, int]:
    """Images in each split, with those that ``ingest`` will take from the training images for splits that are missing.

    Args:
        given: images by the split that the dataset gives them, or "".
        val, test: ``ingest.split``.
    """
    counts = {split: given.get(split, 0) for split in SPLITS}
    pool = counts["train"] + given.get(_OWN_SPLIT, 0)
    taken = {split: round(share * pool) for split, share in (("val", val), ("test", test)) if not given.get(split)}
    return counts | taken | {"train": pool - sum(taken.values())}


def _compared(items: "list[Item]", classes: list[str], counts: Mapping[str, int]) -> Images:
    import pandas as pd

    manifest = _INGESTED / "manifest.parquet"
    known = pd.read_parquet(manifest, columns=["path", "split", "class_name", "bytes"])
    left_out = set(pd.read_csv(_INGESTED / "quarantine.csv", encoding="utf-8-sig")["path"])
    names = [*classes, None]  # the last is that of label -1
    columns = known["path"], known["class_name"].astype(object).where(known["class_name"].notna(), None), known["bytes"]
    before = dict(zip(zip(*columns, strict=True), known["split"], strict=True))
    since = manifest.stat().st_mtime
    now = {(item.path, names[item.label], _size(item, since)): item.split or _OWN_SPLIT for item in items}
    added = {key: split for key, split in now.items() if key not in before and as_cell(key[0]) not in left_out}
    removed = {key: split for key, split in before.items() if key not in now}
    touched = {*added.values(), *removed.values()}
    if _OWN_SPLIT in touched or not touched:  # it depends on their content, or one has changed that looks the same
        touched |= {*LABELED_SPLITS, *([] if touched else SPLITS)}
    same_classes = set(classes) == set(known["class_name"].dropna())
    spared = {"pretrain-source"}
    if same_classes:
        spared |= {"source-domain", *(f"shards/{split}" for split in SPLITS if split not in touched)}
    seen = "train" if (known["split"] == "train").any() else "unlabeled"  # its pixels are averaged there
    if f"shards/{seen}" in spared:
        spared.add("images.json")
    paths = frozenset(str(_INGESTED / name) for name in spared)
    return Images(counts, len(classes), _count(added.values()), _count(removed.values()), paths)


def _count(splits: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(splits).items()))


def _size(item: "Item", since: float) -> int | None:
    """The bytes of an image; None if its file was written after a time, or is missing."""
    if isinstance(item.data, bytes):
        return len(item.data)
    facts = item.data.stat() if os.path.isfile(item.data) else None  # a name may be too long for the disk
    return facts.st_size if facts and facts.st_mtime <= since else None
