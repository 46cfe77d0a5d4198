"""How cost grows with the number of images: time and memory of each stage at 10 thousand, 100 thousand and a million.

    .venv/bin/python -m benchmarks.scale --data ~/fashion-mnist
    .venv/bin/python -m benchmarks.scale --data ~/fashion-mnist --images 10000 100000

The dataset is Fashion-MNIST, repeated; each copy of an image differs from the others in two pixels, so that
it is another image with another id, and a look-alike of the others. 7,000 images have a label, all others are the
transfer set. Stages run one after the other, each as the process that `reflux run` starts, with networks so small that
the data's share of the time shows: a ResNet8 as teacher, the default student, one view an image.

Memory is the highest anonymous memory (RssAnon, read every 20 ms): what the kernel can't give back under pressure, as
it can the pages of a memory-mapped file. The file is `results/scale.json`; a figure is of a single round unless
--rounds says otherwise.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks import results
from components.core.params.file import override_params

LABELLED = {"train": 5000, "val": 1000, "test": 1000}
STAGES = ("ingest", "validate", "pretrain", "finetune", "label", "distill")
MEASURED = ("ingest", "validate", "label", "distill")
STEPS, BATCH = 300, 128
RECIPE = [
    *("ingest.source=data", "project.name=scale", "pretrain.model=resnet8", "pretrain.weights=random"),
    *("finetune.image_size=28", "finetune.epochs=1", "finetune.freeze_batch_norm=false"),
    *("label.views=1", f"student.steps={STEPS}", f"student.batch_size={BATCH}", f"student.eval_every={STEPS}"),
]
_ROWS_AT_ONCE = 10_000


def write_dataset(folder: Path, source: Path, count: int) -> None:
    """Write ``count`` images, made of those in ``source``, as Parquet in the Hugging Face layout."""
    table = pq.read_table(source)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()])
    # It holds a few images twice, which validate would stop at when they come to lie in two splits.
    _, kept = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)
    pixels, labels = pixels[np.sort(kept)], table["label"].to_numpy()[np.sort(kept)]
    folder.mkdir()
    begin = 0
    for split, wanted in {**LABELLED, "unlabeled": count - sum(LABELLED.values())}.items():
        rows = np.arange(begin, begin + wanted)
        begin += wanted
        schema = pa.schema([("image", pa.struct([("bytes", pa.binary())])), ("label", pa.int64())])
        with pq.ParquetWriter(folder / f"{split}.parquet", schema, compression="none") as writer:
            for part in np.array_split(rows, -(-wanted // _ROWS_AT_ONCE)):
                files = [{"bytes": _png(pixels[row % len(pixels)], row // len(pixels))} for row in part]
                columns = {"image": files, "label": labels[part % len(pixels)]}
                writer.write_table(pa.table(columns, schema))


def _png(pixels: np.ndarray, copy: int) -> bytes:
    changed = pixels.copy()
    changed[[0, -1], [0, -1]] ^= np.uint8(copy)
    file = io.BytesIO()
    Image.fromarray(changed).save(file, "PNG", compress_level=1)
    return file.getvalue()


def run(stage: str, folder: Path) -> tuple[float, float]:
    """Run a stage to its end; returns seconds and its highest anonymous memory in MB."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "REFLUX"))}
    environment["PYTHONPATH"] = str(results.ROOT)
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            [sys.executable, "-m", f"components.{stage}"], cwd=folder, env=environment, stdout=told, stderr=told
        )
        while process.poll() is None:
            peak = max(peak, _anonymous_kb(process.pid))
            time.sleep(0.02)
        if process.returncode:
            told.seek(0)
            sys.exit(f"Error: {stage} failed:\n{told.read().decode(errors='replace')[-2000:]}")
    return time.monotonic() - began, peak / 1000


def _anonymous_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def measure(folder: Path, count: int, rounds: int) -> Iterator[results.Figure]:
    """The figures of one number of images, in a workspace whose dataset is there, as they come."""
    for stage in STAGES:
        rows = [run(stage, folder) for _ in range(rounds if stage in MEASURED else 1)]
        if stage not in MEASURED:
            continue
        name = f"{stage}_{count // 1000}k"
        rates = [_trained(folder)] if stage == "distill" else [count / seconds for seconds, _ in rows]
        yield results.of_rounds(f"{name}_s", [seconds for seconds, _ in rows], "s")
        yield results.of_rounds(f"{name}_images_per_s", rates, "images/s")
        yield results.of_rounds(f"{name}_peak_mb", [memory for _, memory in rows], "MB")


def _trained(folder: Path) -> float:
    """Images/s of the last training, its start and end left out."""
    return float(pq.read_table(folder / "artifacts/distill/history.parquet")["images_per_s"][-1].as_py())


def main() -> None:
    """Measure each number of images and write the results."""
    example = "example: python -m benchmarks.scale --data ~/fashion-mnist --images 10000 100000"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], epilog=example)
    parser.add_argument("--data", type=Path, required=True, help="folder with Fashion-MNIST's train.parquet")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1, help="how often each stage runs; the median counts")
    parser.add_argument("--out", type=Path, default=results.RESULTS, help="folder that receives scale.json")
    arguments = parser.parse_args()
    source = arguments.data / "train.parquet"
    if not source.is_file():
        parser.error(f"{source} does not exist: name the folder of Fashion-MNIST's Parquet files with --data")
    if not sum(LABELLED.values()) < min(arguments.images) <= max(arguments.images) <= 10_000_000:
        parser.error(f"--images must be from {sum(LABELLED.values()) + 1:,}, which have labels, to 10,000,000")
    figures: list[results.Figure] = []
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "params.yaml").write_bytes((results.ROOT / "params.yaml").read_bytes())
            override_params(RECIPE, folder / "params.yaml")
            write_dataset(folder / "data", source, count)
            # Written as they come: the largest takes long, and whoever stops it keeps what was measured.
            for figure in measure(folder, count, arguments.rounds):
                figures.append(figure)
                results.write("scale", figures, arguments.out)
                print(f"{figure.name}: {figure.value:,.4g} {figure.unit}", flush=True)


if __name__ == "__main__":
    main()
