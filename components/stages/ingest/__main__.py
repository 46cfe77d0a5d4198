"""``python -m reflux.components.stages.ingest``: the dataset as shards, manifest and facts."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reflux.components.core.artifacts import ARTIFACTS, write_json
from reflux.components.core.contract import DAMAGED
from reflux.components.core.errors import listed
from reflux.components.core.runtime.stage import Stage, run
from reflux.components.stages.ingest.checks import WORDS
from reflux.components.stages.ingest.domains import refuse_shared_images
from reflux.components.stages.ingest.ingest import Ingested, ingest
from reflux.components.stages.ingest.slices import TASKS


def main(stage: Stage) -> None:
    """Ingest the dataset that ``ingest.source`` names and those that teach before or with it; record the figures."""
    params = stage.params.ingest
    source = Path(params.source)
    began = time.monotonic()
    take = partial(
        ingest,
        image_size=params.image_size,
        channels=params.channels,
        storage=params.storage,
        decoded_max_gb=params.decoded_max_gb,
        val=params.split.val,
        test=params.split.test,
        max_quarantined=params.max_quarantined,
        min_size_px=params.min_size_px,
        max_megapixels=params.max_megapixels,
        threads=stage.params.run.threads,
    )
    mode = stage.params.pretrain.mode
    result = take(
        source, stage.out("."), slices=params.slices, group=params.group, pretraining=mode, license_=params.license
    )
    stage.source(source)
    sys.stdout.write(summary(result))
    domain = partial(take, classes=result.dataset["classes"])
    _ingest_other(stage, "source-domain", "ingest.source_domain", domain, ("train",))
    tasks = partial(take, slices=list(stage.params.pretrain.tasks), named_by=TASKS)
    _ingest_other(stage, "pretrain-source", "pretrain.source", tasks, ("train", "val"))
    record(stage, result, time.monotonic() - began)


def _ingest_other(stage: Stage, name: str, param: str, take: Callable[..., Ingested], learned: Sequence[str]) -> None:
    """Ingest another dataset into a folder of its own, whose ``dataset.json`` is null without one.

    Args:
        stage: this one, after its own dataset.
        name: of the folder.
        param: the one that names the dataset.
        take: ingests it.
        learned: its splits that teach or choose weights.
    """
    folder, path = stage.out(name), stage.params.datasets.get(param)
    if path is None:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / "dataset.json", None)
        return
    found = take(Path(path), folder, param=param)
    refuse_shared_images(folder / "shards", stage.out("shards"), f"{param} = {path}", learned)
    stage.source(Path(path))
    sys.stdout.write(f"{param}: {summary(found, folder)}")


def record(stage: Stage, result: Ingested, seconds: float) -> None:
    """Write figures, fingerprint and facts to the journal."""
    facts = result.dataset
    metrics = {f"ingest/{split}_images": float(n) for split, n in facts["counts"].items()}
    damaged, repeats = (sum(result.left_out[kind] for kind in kinds) for kinds in (DAMAGED, ("repeat", "overlap")))
    metrics |= {"ingest/quarantined": damaged, "ingest/repeats": repeats, "ingest/seconds": seconds}
    stage.journal.metrics(metrics)
    stage.journal.dataset(facts["name"], facts["fingerprint"], facts["source"], "ingest")
    stage.journal.tags({"dataset.fingerprint": facts["fingerprint"]})
    stage.journal.artifact(stage.out("dataset.json"))
    if result.left_out:
        stage.journal.artifact(stage.out("quarantine.csv"))


def summary(result: Ingested, folder: Path = ARTIFACTS / "ingest") -> str:
    """A few lines about a dataset whose artifacts are in a folder, for people."""
    facts = result.dataset
    counts = ", ".join(f"{n:,} {split}" for split, n in facts["counts"].items())
    lines = [f"{facts['name']}: {counts} images of {len(facts['classes'])} classes"]
    left_out = [f"{result.left_out[kind]:,} {words}" for kind, words in WORDS.items() if result.left_out[kind]]
    if left_out:
        lines.append(f"Left out: {'; '.join(left_out)}; listed in {folder}/quarantine.csv")
    if result.ignored:
        lines.append(f"{len(result.ignored):,} other files ignored: {listed(result.ignored, 3)}")
    if overlaps := result.left_out["overlap"]:
        lines.append(
            f"Warning: {overlaps:,} images were in a second split too: each stays in test, else in val, else in train."
        )
    lines += [f"Warning: {doubt}." for doubt in result.doubts]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    run("ingest", main)
