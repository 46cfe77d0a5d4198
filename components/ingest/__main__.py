"""``python -m components.ingest``: the dataset as shards, manifest and facts."""

import sys
import time
from pathlib import Path

from components.core.errors import listed
from components.core.runtime.stage import Stage, run
from components.ingest.ingest import Ingested, ingest


def main(stage: Stage) -> None:
    """Ingest the dataset that ``ingest.source`` names, and record the figures."""
    params = stage.params.ingest
    source = Path(params.source)
    began = time.monotonic()
    result = ingest(
        source,
        stage.out("."),
        image_size=params.image_size,
        channels=params.channels,
        storage=params.storage,
        decoded_max_gb=params.decoded_max_gb,
        val=params.split.val,
        test=params.split.test,
        max_unreadable=params.max_unreadable,
        max_megapixels=params.max_megapixels,
        threads=stage.params.run.threads,
        slices=params.slices,
    )
    stage.source(source)
    sys.stdout.write(summary(result))
    record(stage, result, time.monotonic() - began)


def record(stage: Stage, result: Ingested, seconds: float) -> None:
    """Write figures, fingerprint and facts to the journal."""
    facts = result.dataset
    metrics = {f"ingest/{split}_images": float(n) for split, n in facts["counts"].items()}
    metrics |= {"ingest/quarantined": result.unreadable, "ingest/repeats": result.repeats, "ingest/seconds": seconds}
    stage.journal.metrics(metrics)
    stage.journal.dataset(facts["name"], facts["fingerprint"], facts["source"], "ingest")
    stage.journal.tags({"dataset.fingerprint": facts["fingerprint"]})
    stage.journal.artifact(stage.out("dataset.json"))
    if result.unreadable or result.repeats:
        stage.journal.artifact(stage.out("quarantine.parquet"))


def summary(result: Ingested) -> str:
    """A few lines about the dataset, for people."""
    facts = result.dataset
    counts = ", ".join(f"{n:,} {split}" for split, n in facts["counts"].items())
    lines = [f"{facts['name']}: {counts} images of {len(facts['classes'])} classes"]
    if result.unreadable:
        lines.append(f"{result.unreadable:,} unreadable, listed in artifacts/ingest/quarantine.parquet")
    if result.repeats:
        lines.append(f"{result.repeats:,} repeated in their split and left out, listed there as well")
    if result.ignored:
        lines.append(f"{len(result.ignored):,} other files ignored: {listed(result.ignored, 3)}")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    run("ingest", main)
