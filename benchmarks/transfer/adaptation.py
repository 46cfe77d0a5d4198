"""What a source domain and adaptation bring: MNIST teaches scikit-learn's digits, a network from scratch.

    .venv/bin/python -m benchmarks.transfer.adaptation          # seeds 0, 1 and 2
    .venv/bin/python -m benchmarks.transfer.adaptation 0 1 2 3 4

It runs the stages ``ingest``, ``pretrain`` and ``finetune`` with the labels of 1 and of 5 digits a class; all others
but 200 of validation and 600 of test have none. The source domain is the 1,000 training images of MNIST that ship with
the tests. ``target labels`` learns from the digits alone, for as many steps; ``after source labels`` does so from
where ``pretrain.mode=supervised`` on MNIST ended, with a new head; ``and source labels`` has the source domain and
``finetune.adaptation=none``; the rest name their method. It prints a table and writes
``benchmarks/results/adaptation.json``: accuracies of the test digits in percent, with Student's t over the seeds
(95 %).
"""

import io
import shutil
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.harness.results import ROOT, Figure, of_seeds, read
from benchmarks.transfer.few_digits import TEST, VAL, Results, digits, measure, table
from reflux.components.core.images.shards import Pixels, open_shard
from reflux.components.core.inference import validate
from reflux.components.core.models.pixel_model import load
from reflux.components.core.params.file import override_params
from reflux.components.core.runtime.stage import Stage
from reflux.components.finetune.__main__ import main as finetune
from reflux.components.ingest.__main__ import main as ingest
from reflux.components.pretrain.__main__ import main as pretrain

LABELS = (1, 5)  # of each class
MNIST = ROOT / "tests/data/mnist"
STEPS = 400
BATCH = 32
ALONE, PRETRAINED, SOURCE = "target labels", "after source labels", "and source labels"
ARMS = {
    ALONE: ("ingest.source_domain=null",),
    PRETRAINED: ("ingest.source_domain=null", "pretrain.mode=supervised", f"pretrain.source={MNIST}"),
    SOURCE: ("finetune.adaptation=none",),
    **{method: (f"finetune.adaptation={method}",) for method in ("dan", "deep-coral", "dann")},
    "dann, a tenth": ("finetune.adaptation=dann", "finetune.adaptation_weight=0.1"),
}
RECIPE = (
    *("ingest.source=data/digits", f"ingest.source_domain={MNIST}", "ingest.image_size=16", "ingest.channels=1"),
    *("pretrain.weights=random", "pretrain.model=resnet8", "finetune.image_size=16", "finetune.layer_decay=1"),
    *("finetune.freeze_batch_norm=false", f"finetune.batch_size={BATCH}", "finetune.lr=0.003"),
    *(f"{stage}.augment={{shift: 0.1, flip: false, rotate_deg: 10}}" for stage in ("pretrain", "finetune")),
    *(f"pretrain.steps={STEPS}", f"pretrain.batch_size={BATCH}", "run.device=cpu"),
)


def run(folder: Path, labels: int, seed: int, threads: int) -> dict[str, float]:
    """Train the teachers of one draw of labels in an empty folder; returns the accuracy of each arm in percent."""
    accuracies = {}
    with chdir(folder):
        write_digits(Path("data/digits"), labels, seed)
        for arm, settings in ARMS.items():
            for name in ("dvc.yaml", "params.yaml"):
                shutil.copy(ROOT / name, name)
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
    if arm in (ALONE, PRETRAINED):
        return STEPS // max(1, images // min(BATCH, images))
    return STEPS // ((images + 850) // (2 * BATCH))  # 15 % of MNIST's 1,000 training images are held out


def write_digits(folder: Path, labels: int, seed: int, held_out: tuple[int, int] = (TEST, VAL)) -> None:
    """Write the digits as Parquet in a folder that is made; the rest as :func:`digits` has it."""
    images, targets, splits = digits(labels, seed, held_out)
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        rows_of_split = [{"image": {"bytes": _png(images[row])}, "label": int(targets[row])} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows_of_split), folder / f"{split}.parquet")


def _png(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def figures_of(results: Results) -> list[Figure]:
    """The mean of each arm over the seeds, and its gain over the source's labels, by the number of labels a class."""
    figures = []
    for labels, seeds in results.items():
        for arm in ARMS:
            figures.append(of_seeds(f"{labels} labels a class, {arm}", [seed[arm] for seed in seeds], "%"))
            if arm not in (ALONE, PRETRAINED, SOURCE):
                gains = [seed[arm] - seed[SOURCE] for seed in seeds]
                figures.append(of_seeds(f"{labels} labels a class, {arm} - {SOURCE}", gains, "points"))
    return figures


def section(folder: Path) -> str:
    """The page's table from the results in a folder, as Markdown."""
    gains = [f"{arm} - {SOURCE}" for arm in ARMS if arm not in (ALONE, PRETRAINED, SOURCE)]
    return table(read("adaptation", folder), LABELS, [*ARMS, *gains])


if __name__ == "__main__":
    measure("adaptation", __doc__, LABELS, run, figures_of, section)
