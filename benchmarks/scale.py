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

import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.harness.processes import Usage, measured
from benchmarks.harness.results import ROOT, Figure, argument_parser, of_rounds, publish, read
from reflux.components.core.params.file import override_params

LABELED = {"train": 5000, "val": 1000, "test": 1000}
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
    # It holds a few images twice, at which validate would stop when they are in two splits.
    _, kept = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)
    pixels, labels = pixels[np.sort(kept)], table["label"].to_numpy()[np.sort(kept)]
    folder.mkdir()
    begin = 0
    for split, size in {**LABELED, "unlabeled": count - sum(LABELED.values())}.items():
        rows = np.arange(begin, begin + size)
        begin += size
        schema = pa.schema([("image", pa.struct([("bytes", pa.binary())])), ("label", pa.int64())])
        with pq.ParquetWriter(folder / f"{split}.parquet", schema, compression="none") as writer:
            for part in np.array_split(rows, -(-size // _ROWS_AT_ONCE)):
                files = [{"bytes": _png(pixels[row % len(pixels)], row // len(pixels))} for row in part]
                columns = {"image": files, "label": labels[part % len(pixels)]}
                writer.write_table(pa.table(columns, schema))


def _png(pixels: np.ndarray, copy: int) -> bytes:
    changed = pixels.copy()
    changed[[0, -1], [0, -1]] ^= np.uint8(copy)
    file = io.BytesIO()
    Image.fromarray(changed).save(file, "PNG", compress_level=1)
    return file.getvalue()


def run(stage: str, folder: Path) -> Usage:
    """Run a stage to its end, and watch its anonymous memory."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "REFLUX"))}
    command = [sys.executable, "-m", f"reflux.components.stages.{stage}"]
    return measured(command, folder, "RssAnon", environment | {"PYTHONPATH": str(ROOT / "infra/package")})


def measure(source: Path, counts: Sequence[int], rounds: int) -> Iterator[Figure]:
    """The figures of several numbers of images, each in a workspace of its own."""
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for name in ("dvc.yaml", "params.yaml"):
                (folder / name).write_bytes((ROOT / name).read_bytes())
            override_params(RECIPE, folder / "params.yaml")
            write_dataset(folder / "data", source, count)
            yield from measure_stages(folder, count, rounds)


def measure_stages(folder: Path, count: int, rounds: int) -> Iterator[Figure]:
    """The figures of one number of images, in a workspace that has the dataset, one after the other."""
    for stage in STAGES:
        usages = [run(stage, folder) for _ in range(rounds if stage in MEASURED else 1)]
        if stage not in MEASURED:
            continue
        name = f"{stage}_{count // 1000}k"
        rates = [_trained(folder)] if stage == "distill" else [count / usage.wall_s for usage in usages]
        yield of_rounds(f"{name}_s", [usage.wall_s for usage in usages], "s")
        yield of_rounds(f"{name}_images_per_s", rates, "images/s")
        yield of_rounds(f"{name}_peak_mb", [usage.peak_kb / 1000 for usage in usages], "MB")


def _trained(folder: Path) -> float:
    """Images/s of the last training run, without its start and end."""
    return float(pq.read_table(folder / "artifacts/distill/history.parquet")["images_per_s"][-1].as_py())


def section(folder: Path) -> str:
    """The page's table of how time and memory grow, from the results in a folder, as Markdown."""
    result = read("scale", folder)
    counts = sorted({int(match[1]) for figure in result.figures if (match := re.search(r"_(\d+)k_", figure.name))})
    heads = [f"{1000 * count:,} images" for count in counts]
    lines = [f"| stage | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(counts)]
    for stage in MEASURED:
        names = [f"{stage}_{count}k" for count in counts]
        cells = [f"{result[f'{one}_s'].value:,.0f} s, {result[f'{one}_peak_mb'].value:,.0f} MB" for one in names]
        lines.append(f"| `{stage}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", str(result)])


def main() -> None:
    """Measure each number of images and write the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST; see benchmarks/README.md")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1, help="how often each stage runs; the median counts")
    options = parser.parse_args()
    source = options.data / "train.parquet"
    if not source.is_file():
        parser.error(f"{source} does not exist: name the folder of Fashion-MNIST's Parquet files with --data")
    if not sum(LABELED.values()) < min(options.images) <= max(options.images) <= 10_000_000:
        parser.error(f"--images must be from {sum(LABELED.values()) + 1:,}, which have labels, to 10,000,000")
    publish("scale", measure(source, options.images, options.rounds), options.out)


if __name__ == "__main__":
    main()
