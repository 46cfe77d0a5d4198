"""An arm of the comparison as its conductor sees it: a process that trains when it is told to."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.results import ROOT
from benchmarks.throughput.setting import Setting
from reflux.flows.local.supervised import STAGE_ENVIRONMENT

OURS = ("bare", "store", "live", "fill")


@dataclass
class Arm:
    """One way to train, and what was measured of it.

    Attributes:
        kind: a function of ``ours`` or ``peers``.
        setting: what it shares with others.
        switches: its own arguments.
        rates: images a second, one a round.
        peak_mb: its process's largest resident memory.
        loss: of the first batch; None where it trains nothing.
        steps: of a round.
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
        description = {"kind": self.kind, "setting": asdict(self.setting), "switches": self.switches}
        command = [sys.executable, "-m", "benchmarks.throughput.process", json.dumps(description)]
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

    def wait_until_built(self) -> None:
        """Wait for its loss of the first batch."""
        self.loss = self._reply().get("loss")

    def warm_up(self, seconds: float) -> None:
        """Run until the speed is known, and choose the steps of a round."""
        self._time(2)
        a_step = self._time(2) / 2
        self.steps = max(2, math.ceil(seconds / a_step))
        a_step = self._time(min(self.steps, 20)) / min(self.steps, 20)
        self.steps = max(2, math.ceil(seconds / a_step))

    def run_round(self) -> None:
        """Measure one round."""
        self.rates.append(self.steps * self.setting.batch_size / self._time(self.steps))

    def stop(self) -> None:
        """End the process."""
        if hasattr(self, "_process"):
            self._process.communicate()
            self._log.close()

    def _time(self, steps: int) -> float:
        """Seconds that some steps take."""
        print(steps, file=self._process.stdin, flush=True)
        reply = self._reply()
        self.peak_mb = reply["peak_mb"]
        return reply["seconds"]

    def _reply(self) -> dict[str, Any]:
        line = next(iter(self._process.stdout or ()), "")
        if not line:
            self._process.wait()
            self._log.seek(0)
            sys.exit(f"Error: the arm {self.kind} ended too early:\n{self._log.read()[-3000:]}")
        return json.loads(line)


def measure(arms: Mapping[str, Arm], rounds: int, seconds: float) -> None:
    """Let the arms take turns."""
    try:
        for arm in arms.values():
            arm.start()
        for arm in arms.values():
            arm.wait_until_built()
        training = {name: arm for name, arm in arms.items() if arm.loss is not None}
        for setting in {arm.setting for arm in training.values()}:
            check_agreement({name: arm for name, arm in training.items() if arm.setting == setting})
        for name, arm in arms.items():
            print(f"  warming up {name}", flush=True)
            arm.warm_up(seconds)
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", flush=True)
            for arm in arms.values():
                arm.run_round()
    finally:
        for arm in arms.values():
            arm.stop()


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
