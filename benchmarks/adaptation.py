"""What a source domain and adaptation bring: MNIST teaches scikit-learn's digits, a network from scratch.

    .venv/bin/python -m benchmarks.adaptation          # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.adaptation 0 1 2 3 4

It runs the stages ``ingest``, ``pretrain`` and ``finetune`` with the labels of 1 and of 5 digits a class; all others
but 200 of validation and 600 of test have none. The source domain is the 1,000 training images of MNIST that ship with
the tests. ``target labels`` learns from the digits alone, for as many steps; ``and source labels`` has the source
domain and ``finetune.adaptation=none``; the rest name their method. It prints a table and writes
``benchmarks/results/adaptation.json``: accuracies of the test digits in percent, with Student's t over the seeds
(95 %).
"""

import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.results import ROOT, Figure, argument_parser, of_seeds, read, write
from components.core.images.shards import Pixels, open_shard
from components.core.inference import validate
from components.core.models.pixel_model import load
from components.core.params.file import override_params
from components.core.runtime.stage import Stage
from components.finetune.__main__ import main as finetune
from components.ingest.__main__ import main as ingest
from components.pretrain.__main__ import main as pretrain

LABELS = (1, 5)  # of each class
VAL, TEST = 200, 600
MNIST = ROOT / "tests/data/mnist"
STEPS = 400
BATCH = 32
ALONE, SOURCE = "target labels", "and source labels"
ARMS = {
    ALONE: ("ingest.source_domain=null",),
    SOURCE: ("finetune.adaptation=none",),
    **{method: (f"finetune.adaptation={method}",) for method in ("dan", "deep-coral", "dann")},
    "dann, a tenth": ("finetune.adaptation=dann", "finetune.adaptation_weight=0.1"),
}
RECIPE = (
    *("ingest.source=data/digits", f"ingest.source_domain={MNIST}", "ingest.image_size=16", "ingest.channels=1"),
    *("pretrain.weights=random", "pretrain.model=resnet8", "finetune.image_size=16", "finetune.layer_decay=1"),
    *("finetune.freeze_batch_norm=false", f"finetune.batch_size={BATCH}", "finetune.lr=0.003"),
    *("finetune.augment={shift: 0.1, flip: false, rotate_deg: 10}", "run.device=cpu"),
)


def run(folder: Path, labels: int, seed: int, threads: int) -> dict[str, float]:
    """Train the teachers of one draw of labels in an empty folder; returns the accuracy of each arm in percent."""
    accuracies = {}
    with chdir(folder):
        write_digits(Path("data/digits"), labels, seed)
        for arm, settings in ARMS.items():
            shutil.copy(ROOT / "params.yaml", "params.yaml")
            given = [f"seed={seed}", f"run.threads={threads}", f"finetune.epochs={epochs(arm, labels)}"]
            params = override_params([*RECIPE, *given, *settings])
            for name, main in (("ingest", ingest), ("pretrain", pretrain), ("finetune", finetune)):
                Path("artifacts", name).mkdir(parents=True, exist_ok=True)
                main(Stage(name, params))
            teacher = load(Path("artifacts/finetune/model.safetensors"))
            test = open_shard(Path("artifacts/ingest/shards/test"))
            accuracies[arm] = 100 * validate(teacher, test, torch.device("cpu"))[1]
    return accuracies


def epochs(arm: str, labels: int) -> int:
    """As many as make about ``STEPS`` steps, with the source domain or without."""
    images = 10 * labels
    if arm == ALONE:
        return STEPS // max(1, images // min(BATCH, images))
    return STEPS // ((images + 850) // (2 * BATCH))  # 15 % of MNIST's 1,000 training images are held out


def write_digits(folder: Path, labels: int, seed: int, held_out: tuple[int, int] = (TEST, VAL)) -> None:
    """Write scikit-learn's digits as Parquet, in an order of the seed.

    Args:
        folder: that is made.
        labels: of each class to train on.
        seed: of the order.
        held_out: images to test and to validate on.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    test, val, rest = np.split(np.random.default_rng(seed).permutation(len(images)), [held_out[0], sum(held_out)])
    train = np.concatenate([rest[digits.target[rest] == number][:labels] for number in range(10)])
    folder.mkdir(parents=True)
    for split, rows in {"train": train, "val": val, "test": test, "unlabeled": np.setdiff1d(rest, train)}.items():
        table = [{"image": {"bytes": _png(images[row])}, "label": int(digits.target[row])} for row in rows]
        pq.write_table(pa.Table.from_pylist(table), folder / f"{split}.parquet")


def _png(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def figures_of(results: Mapping[int, Sequence[Mapping[str, float]]]) -> list[Figure]:
    """The mean of each arm over the seeds, and its gain over the source's labels, by the number of labels a class."""
    figures = []
    for labels, seeds in results.items():
        for arm in ARMS:
            figures.append(of_seeds(f"{labels} labels a class, {arm}", [seed[arm] for seed in seeds], "%"))
            if arm not in (ALONE, SOURCE):
                gains = [seed[arm] - seed[SOURCE] for seed in seeds]
                figures.append(of_seeds(f"{labels} labels a class, {arm} - {SOURCE}", gains, "points"))
    return figures


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    result = read("adaptation", folder)
    head = " | ".join(f"{labels} label{'s' if labels > 1 else ''} a class" for labels in LABELS)
    lines = [f"| | {head} |", f"| --- |{' ---: |' * len(LABELS)}"]
    for name in (*ARMS, *(f"{arm} - {SOURCE}" for arm in ARMS if arm not in (ALONE, SOURCE))):
        found = [result[f"{labels} labels a class, {name}"] for labels in LABELS]
        lines.append(f"| {name} | {' | '.join(f'{each.value:.1f} ± {each.high - each.value:.1f}' for each in found)} |")
    return "\n".join([*lines, "", str(result)])


def main() -> None:
    """Print the table in Markdown and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves it to torch")
    options = parser.parse_args()
    out = options.out.absolute()
    results: dict[int, list[dict[str, float]]] = {labels: [] for labels in LABELS}
    for seed in options.seeds:
        for labels in LABELS:
            with tempfile.TemporaryDirectory() as scratch:
                results[labels].append(run(Path(scratch), labels, seed, options.threads))
    written = write("adaptation", figures_of(results), out)
    print(f"\n{section(out)}\n\nWritten: {written}")


if __name__ == "__main__":
    main()
