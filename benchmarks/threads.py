"""How torch's threads should wait for each other: the student's bare step, alone and next to a busy process.

    .venv/bin/python -m benchmarks.threads     # four minutes

Each way to wait is a process of its own, because libgomp reads its environment once; they take turns, five rounds. The
memory is kept as ``STAGE_ENVIRONMENT`` of ``reflux.flows.local.supervised`` has it.
"""

import multiprocessing
import os
import subprocess
import sys
import time

import torch
from torch.nn.functional import cross_entropy

from benchmarks.harness.results import argument_parser, of_rounds, publish
from benchmarks.throughput.setting import CLASSES, MEAN, STD, optimizer_of
from reflux.components.modalities.image.models.pixel_model import pixel_model
from reflux.flows.local.supervised import STAGE_ENVIRONMENT

BATCH, STEPS, ROUNDS = 128, 100, 5
SPINS = "GOMP_SPINCOUNT"
WAYS = {
    "sleep_at_once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin_3000": {SPINS: STAGE_ENVIRONMENT[SPINS]},
    "spin_30000": {SPINS: "30000"},
}


def measure(steps: int) -> float:
    """Images a second of the bare fp32 step of resnet8_slim."""
    torch.manual_seed(0)
    student = pixel_model("resnet8_slim", CLASSES, 28, 1, MEAN, STD).train()
    optimizer = optimizer_of(student)
    pixels, labels = torch.randint(0, 256, (BATCH, 1, 28, 28), dtype=torch.uint8), torch.arange(BATCH) % 10
    began = 0.0
    for step in range(-10, steps):
        if step == 0:
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(student(pixels), labels).backward()
        optimizer.step()
    return steps * BATCH / (time.perf_counter() - began)


def burn() -> None:
    """Keep one core busy."""
    while True:
        pass


def rate(way: dict[str, str], steps: int) -> float:
    """:func:`measure` in a process whose threads wait in some way."""
    kept = {name: value for name, value in STAGE_ENVIRONMENT.items() if name != SPINS}
    command = [sys.executable, "-m", "benchmarks.threads", "--measure", str(steps)]
    done = subprocess.run(command, env=os.environ | kept | way, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure every way and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--measure", type=int, metavar="STEPS", help="only print how fast this process is")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure))
        return
    figures = []
    for place in ("alone", "next_to_a_busy_process"):
        other = multiprocessing.Process(target=burn, daemon=True)
        if place != "alone":
            other.start()
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(options.rounds):
            for name, way in WAYS.items():
                rates[name].append(rate(way, options.steps))
        figures += [of_rounds(f"{place}/{name}", values, "images/s") for name, values in rates.items()]
        if other.is_alive():
            other.kill()
    publish("threads", figures, options.out)


if __name__ == "__main__":
    main()
