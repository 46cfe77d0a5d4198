"""How fast a student is distilled, by this project and by its peers, taking turns on the same machine.

    make bench                                                  # measures, then redoes the README's table and plot
    .venv/bin/python -m benchmarks.throughput --data DIR        # another folder of Hugging Face Parquet files
    .venv/bin/python -m benchmarks.throughput --help

All arms (``ours`` and ``peers`` in this folder) train the same student from the same weights with the same teacher,
loss, optimizer, batch size and number of threads, in fp32 unless their name says otherwise; before anything is timed
they must agree on the loss of the same first batch. Each arm is a process, and one computes at a time: a round lets
every arm run a few steps, then the next round begins. Our arms and the bare step run in the environment that the
pipeline gives its stages, peers in that of their users. A figure is the median of the rounds, its low and high are
the lowest and highest round; a ratio is taken within a round. Teachers have random weights. Validation is left out of
every arm.

Peers get what makes them fast: images decoded in memory, transforms on tensors, resizing and normalisation by the
batch, the fused optimizer, no schedule, no progress bar. Our loop runs whole, with its checkpoints, schedule and bar.
With everything on, each side is the faster of its two variants: bfloat16 and channels-last, and torch.compile beside
them. The loop as it ships trains the student in fp32 on a CPU; ``store`` is that one.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.results import RESULTS, ROOT, Figure, of_rounds, write
from benchmarks.throughput.setting import VIEWS, Setting, write_store
from components.core.images.shards import open_shard
from flows.local.supervised import STAGE_ENVIRONMENT

OURS = ("bare", "store", "live", "fill")
PLAIN = {"channels_last": False, "bf16_student": False, "bf16_teacher": False, "compiled": False}
EAGER = {"channels_last": True, "bf16_student": True, "bf16_teacher": True, "compiled": False}
ALL_ON = EAGER | {"compiled": True}


@dataclass
class Arm:
    """One way to train, and what came of it.

    Attributes:
        kind: a function of ``benchmarks.throughput.process``.
        setting: what it shares with others.
        switches: its own arguments.
        rates: images a second, one a round.
        peak_mb: its process's largest resident memory.
    """

    kind: str
    setting: Setting
    switches: dict[str, bool] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    loss: float | None = None
    steps: int = 0

    @property
    def in_fp32(self) -> bool:
        """Whether its first loss is computed in fp32."""
        return not any(value for name, value in self.switches.items() if name.startswith("bf16"))

    def start(self) -> None:
        """Build the arm in a process of its own."""
        asked = {"arm": self.kind, "setting": asdict(self.setting), "switches": self.switches}
        command = [sys.executable, "-m", "benchmarks.throughput.process", json.dumps(asked)]
        self._log = (Path(self.setting.folder) / f"{self.kind}-{id(self)}.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=(STAGE_ENVIRONMENT if self.kind in OURS else {}) | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def get_ready(self) -> None:
        """Wait until it is built, and hear its loss of the first batch."""
        self.loss = self._answer().get("loss")

    def turn(self, steps: int) -> float:
        """Seconds that some steps take."""
        print(steps, file=self._process.stdin, flush=True)
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        return answer["seconds"]

    def warm_up(self, seconds: float) -> None:
        """Run until the speed is known, and choose the steps of a round."""
        self.turn(2)
        a_step = self.turn(2) / 2
        self.steps = max(2, math.ceil(seconds / a_step))
        a_step = self.turn(min(self.steps, 20)) / min(self.steps, 20)
        self.steps = max(2, math.ceil(seconds / a_step))

    def round(self) -> None:
        """One turn of the measurement."""
        self.rates.append(self.steps * self.setting.batch_size / self.turn(self.steps))

    def stop(self) -> None:
        """End the process."""
        if hasattr(self, "_process"):
            self._process.communicate()
            self._log.close()

    def _answer(self) -> dict[str, Any]:
        line = next(iter(self._process.stdout or ()), "")
        if not line:
            self._process.wait()
            self._log.seek(0)
            sys.exit(f"Error: the arm {self.kind} ended before its time:\n{self._log.read()[-3000:]}")
        return json.loads(line)


def check_agreement(arms: Mapping[str, Arm]) -> None:
    """Refuse to time arms of one setting that do not compute the same.

    Raises:
        SystemExit: two losses of the first batch differ by more than 1e-5; with bfloat16, which keeps 8 bits, by more
            than 2 %.
    """
    losses = {name: float(arm.loss or math.nan) for name, arm in arms.items()}
    exact = [loss for name, loss in losses.items() if arms[name].in_fp32] or [median(losses.values())]
    for name, loss in losses.items():
        tolerance = 1e-5 if arms[name].in_fp32 else 0.02 * median(exact)
        if not max(abs(loss - other) for other in exact) <= tolerance:
            sys.exit(f"Error: {name} does not train the same as the others; nothing was timed. First losses: {losses}")


def write_images(source: Path, count: int, folder: Path) -> None:
    """Decode the first images of ``train*.parquet`` and ``unlabeled*.parquet``, as ``ingest`` stores them."""
    tables = [
        pd.read_parquet(file) for name in ("train", "unlabeled") for file in sorted(source.glob(f"{name}*.parquet"))
    ]
    if not tables:
        sys.exit(f"Error: {source} holds no train*.parquet: name a folder in the Hugging Face layout with --data.")
    rows = pd.concat(tables, ignore_index=True).head(count)
    raw = [image["bytes"] for image in rows["image"]]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((28, 28))) for data in raw])
    # Peers can't leave the label out where there is none; a label's value changes no speed.
    labels = rows["label"].fillna(0).to_numpy(np.int64)
    folder.mkdir()
    np.save(folder / "images.npy", pixels[..., None])
    np.save(folder / "labels.npy", labels)
    np.save(
        folder / "ids.npy",
        np.array([int.from_bytes(hashlib.sha256(data).digest()[:8], "big") for data in raw], np.uint64),
    )


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
    elif not quick:
        sys.exit("Error: torchdistill is not installed: run `make bench`, which installs it.")
    return arms


def measure(arms: dict[str, Arm], rounds: int, seconds: float) -> None:
    """Let the arms take turns."""
    try:
        for arm in arms.values():
            arm.start()
        for arm in arms.values():
            arm.get_ready()
        training = {name: arm for name, arm in arms.items() if arm.loss is not None}
        for setting in {arm.setting for arm in training.values()}:
            check_agreement({name: arm for name, arm in training.items() if arm.setting == setting})
        for name, arm in arms.items():
            print(f"  warms up {name}", flush=True)
            arm.warm_up(seconds)
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", flush=True)
            for arm in arms.values():
                arm.round()
    finally:
        for arm in arms.values():
            arm.stop()


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> Figure:
    """How many times as fast one arm is as another, round by round."""
    return of_rounds(name, [a / b for a, b in zip(above, below, strict=True)], "x")


def best(arms: Mapping[str, Arm], name: str) -> list[float]:
    """The rates of the faster of two variants with everything on."""
    return max((arms[f"{name}_{variant}"].rates for variant in ("eager", "all_on")), key=median)


def figures_of(arms: Mapping[str, Arm], images: int, suffix: str = "") -> list[Figure]:
    """The table's figures, as far as their arms were run, and every arm's speed."""
    rates = {name: arm.rates for name, arm in arms.items()}
    found = [ratio("store_over_bare", rates["store"], rates["bare"])]
    if "torchdistill_fp32" in rates:
        found.append(ratio("store_over_torchdistill_fp32", rates["store"], rates["torchdistill_fp32"]))
        found.append(ratio("live_over_torchdistill_fp32", rates["live_fp32"], rates["torchdistill_fp32"]))
    if "torchdistill_eager" in rates:
        found.append(ratio("store_over_torchdistill_best", best(arms, "store"), best(arms, "torchdistill")))
        found.append(ratio("live_over_torchdistill_best", rates["live"], best(arms, "torchdistill")))
    if "torchdistill_resnet50_eager" in rates:
        peer = best(arms, "torchdistill_resnet50")
        found.append(ratio("store_over_torchdistill_resnet50", best(arms, "store"), peer))
    if "live_recipe" in rates:
        found += break_even(rates["store"], rates["live_recipe"], rates["fill_recipe"], images)
    if "plain_fp32" in arms:
        memory = round(arms["store"].peak_mb / arms["plain_fp32"].peak_mb, 3)
        found.append(Figure("memory_over_plain", memory, memory, memory, "x"))
    found += [of_rounds(f"images_per_s_{name}", values, "images/s") for name, values in rates.items()]
    found += [Figure(f"peak_mb_{name}", *[round(arm.peak_mb)] * 3, "MB") for name, arm in arms.items()]
    return [Figure(figure.name + suffix, figure.value, figure.low, figure.high, figure.unit) for figure in found]


def break_even(store: Sequence[float], live: Sequence[float], fill: Sequence[float], images: int) -> list[Figure]:
    """After how many epochs filling the store and reading it has taken no longer than asking the teacher every time."""
    epochs = [VIEWS / f / (1 / li - 1 / s) for s, li, f in zip(store, live, fill, strict=True)]
    seconds = [images * VIEWS / f for f in fill]
    return [of_rounds("store_break_even_epochs", epochs, "epochs"), of_rounds("store_fill_s", seconds, "s")]


def main() -> None:
    """Measure, and write ``throughput.json``."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, default=ROOT / "data/fashion-mnist", help="folder of train*.parquet")
    ask.add_argument("--images", type=int, default=9500, help="how many of them; the default recipe has 9,500")
    ask.add_argument("--batch-size", type=int, default=128, help="the default recipe's; peers' papers take 64")
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--seconds", type=float, default=4.0, help="a round of a fast arm; slow ones take two steps")
    ask.add_argument("--out", type=Path, default=RESULTS)
    ask.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    asked = ask.parse_args()
    if asked.quick:
        asked.images, asked.batch_size, asked.rounds, asked.seconds = 64, 16, 1, 0.0
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(asked.data, asked.images, folder / "images")
        images = open_shard(folder / "images")
        arms = arms_of("resnet8_slim", asked.threads, asked.batch_size, folder, asked.quick)
        for setting in {arm.setting for arm in arms.values() if arm.kind in ("bare", "store")}:
            write_store(setting, images)
        measure(arms, asked.rounds, asked.seconds)
        found += figures_of(arms, len(images))
        if not asked.quick:
            wide = arms_of("resnet8x4", asked.threads, asked.batch_size, folder, asked.quick)
            names = ("bare", "bare_bf16", "bare_compiled", "store", "live_fp32", "torchdistill_fp32")
            wide = {name: wide[name] for name in names}
            measure(wide, asked.rounds, asked.seconds)
            found += figures_of(wide, len(images), "_resnet8x4")
    path = write("throughput", found, asked.out)
    for figure in found:
        print(f"{figure.name:48} {figure.value:10.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}")
    print(f"{asked.threads} threads, batches of {asked.batch_size}; written: {path}")


if __name__ == "__main__":
    main()
