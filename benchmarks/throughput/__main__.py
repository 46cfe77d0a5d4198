"""How fast a student is distilled, by this project and by its peers, taking turns on the same machine.

    make bench                                                  # measures, then rewrites the page's table and plot
    .venv/bin/python -m benchmarks.throughput --data DIR        # another folder of Hugging Face Parquet files
    .venv/bin/python -m benchmarks.throughput --help

All arms (``ours`` and ``peers`` in this folder) train the same student from the same weights with the same teacher,
loss, optimizer, batch size and number of threads, in fp32 unless their name says otherwise; before anything is timed
they must agree on the loss of the same first batch. Each arm is a process, and one computes at a time: a round lets
every arm run a few steps, then the next round begins. Our arms and the bare step run in the environment that the
pipeline gives its stages, peers in that of their users. A figure is the median of the rounds, its low and high are
the lowest and highest round; a ratio is taken within a round. Teachers have random weights. Validation is left out of
every arm.

Peers get what makes them fast: images decoded in memory, transforms on tensors, resizing and normalization by the
batch, the fused optimizer, no schedule, no progress bar. Our loop runs whole, with its checkpoints, schedule and bar.
torchdistill's cache of the teacher's outputs is that of 1.1.4, the last release which has one; it is filled before the
first round, and holds one answer an image, whichever view of it the student sees.
With everything on, each side is the faster of its two variants: bfloat16 and channels-last, and those with
torch.compile.
The loop as it ships trains the student in fp32 on a CPU; ``store`` is that one.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.images import read_images
from benchmarks.harness.results import ROOT, Figure, argument_parser, publish
from benchmarks.throughput.arm import Arm, measure
from benchmarks.throughput.figures import figures_of
from benchmarks.throughput.peers import TORCHDISTILL_WITH_CACHE
from benchmarks.throughput.setting import Setting, write_store
from reflux.components.core.data.shards import open_shard

PLAIN = {"channels_last": False, "bf16_student": False, "bf16_teacher": False, "compiled": False}
EAGER = {"channels_last": True, "bf16_student": True, "bf16_teacher": True, "compiled": False}
ALL_ON = EAGER | {"compiled": True}


def write_images(source: Path, count: int, folder: Path) -> None:
    """Decode the first images of ``train*.parquet`` and ``unlabeled*.parquet``, as ``ingest`` stores them."""
    files = [file for name in ("train", "unlabeled") for file in sorted(source.glob(f"{name}*.parquet"))]
    if not files:
        sys.exit(f"Error: {source} holds no train*.parquet: name a folder in the Hugging Face layout with --data.")
    images = read_images(files, count)
    folder.mkdir()
    np.save(folder / "images.npy", images.images[:])
    # Peers can't leave the label out where there is none; a label's value changes no speed.
    np.save(folder / "labels.npy", images.labels.clip(min=0))
    np.save(folder / "ids.npy", images.ids)


def arms_of(student: str, threads: int, batch_size: int, folder: Path, quick: bool) -> dict[str, Arm]:
    """Every arm of one student by its name."""

    def setting(teacher: str, size: int) -> Setting:
        return Setting(student, teacher, size, batch_size, threads, str(folder))

    lite, recipe, resnet = (
        setting("tf_efficientnet_lite0", 64),
        setting("tf_efficientnet_lite0", 80),
        setting("resnet50", 64),
    )
    arms = {
        "bare": Arm("bare", lite),
        "store": Arm("store", lite),
        "live_fp32": Arm("live", lite, {"bf16": False}),
        "timm_fp32": Arm("timm", lite, PLAIN),
        "plain_fp32": Arm("plain", lite, PLAIN),
        "fill_recipe": Arm("fill", recipe),
    }
    if not quick:
        arms["bare_bf16"] = Arm("bare", lite, {"bf16": True})
        arms["bare_compiled"] = Arm("bare", lite, {"compiled": True})
        arms["store_eager"] = Arm("store", lite, {"bf16": True})
        arms["store_all_on"] = Arm("store", lite, {"bf16": True, "compiled": True})
        arms["store_ahead"] = Arm("store", lite, {"ahead": True})
        arms["live_fp32_ahead"] = Arm("live", lite, {"bf16": False, "ahead": True})
        arms["live"] = Arm("live", lite, {"bf16": True})
        arms["live_recipe"] = Arm("live", recipe, {"bf16": True})
    if importlib.util.find_spec("torchdistill"):
        arms["torchdistill_fp32"] = Arm("torchdistill", lite, PLAIN)
        if not quick:
            for name, teacher in (("torchdistill", lite), ("torchdistill_resnet50", resnet)):
                arms[f"{name}_eager"] = Arm("torchdistill", teacher, EAGER)
                arms[f"{name}_all_on"] = Arm("torchdistill", teacher, ALL_ON)
            arms["torchdistill_resnet50_fp32"] = Arm("torchdistill", resnet, PLAIN)
    if TORCHDISTILL_WITH_CACHE.is_dir():
        for way, switches in (("fp32", PLAIN), ("eager", EAGER), ("all_on", ALL_ON))[: 1 if quick else 3]:
            arms[f"torchdistill_cached_{way}"] = Arm("torchdistill_cached", lite, switches)
    if not quick and not {"torchdistill_fp32", "torchdistill_cached_fp32"} <= arms.keys():
        sys.exit("Error: torchdistill is not installed: run `make bench`, which installs it.")
    return arms


def main() -> None:
    """Measure, and write ``throughput.json``."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data/fashion-mnist", help="folder of train*.parquet")
    parser.add_argument("--images", type=int, default=9500, help="how many of them; the default recipe has 9,500")
    parser.add_argument("--batch-size", type=int, default=128, help="the default recipe's; peers' papers take 64")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="a round of a fast arm; slow ones take two steps")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    options = parser.parse_args()
    if options.quick:
        options.images, options.batch_size, options.rounds, options.seconds = 64, 16, 1, 0.0
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(options.data, options.images, folder / "images")
        images = open_shard(folder / "images")
        arms = arms_of("resnet8_slim", options.threads, options.batch_size, folder, options.quick)
        for setting in {arm.setting for arm in arms.values() if arm.kind in ("bare", "store")}:
            write_store(setting, images)
        measure(arms, options.rounds, options.seconds)
        figures += figures_of(arms, len(images))
        if not options.quick:
            wide = arms_of("resnet8x4", options.threads, options.batch_size, folder, options.quick)
            ours = ("bare", "bare_bf16", "bare_compiled", "store", "live_fp32")
            wide = {name: wide[name] for name in (*ours, "torchdistill_fp32", "torchdistill_cached_fp32")}
            measure(wide, options.rounds, options.seconds)
            figures += figures_of(wide, len(images), "_resnet8x4")
    print(f"{options.threads} threads, batches of {options.batch_size}")
    publish("throughput", figures, options.out)


if __name__ == "__main__":
    main()
