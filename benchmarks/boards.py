"""How long a board takes to open in a browser when an experiment has many retrains.

    .venv/bin/python -m benchmarks.boards                  # 200 retrains, some minutes

The retrains are journals that a courier delivers to a real MLflow server of one worker on SQLite: each with every
metric that the boards show, and the child runs of three trainings. ``board_open_s`` is the time from the address to the
first drawn line of "Retraining health", in Debian's chromium with an empty cache and a window of 1600 by 1000 pixels:
what lies below the window is not drawn, and costs nothing. Low and high are of the rounds.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import browser
from benchmarks.results import RESULTS, of_rounds, write
from components.boards import declared
from components.boards.keep import keep
from components.core.runtime import tracking
from components.core.runtime.journal import Journal
from flows.local.prefect_server import answers, free_port


def fill(retrains: int) -> None:
    """Write the retrains of an experiment."""
    draw = random.Random(0)  # noqa: S311 - figures for a picture
    shown = sorted(frozenset().union(*(board.metrics() for board in declared.ALL if board is not declared.CURVES)))
    for number in range(retrains):
        retrain = Journal("many", f"retrain-{number}", {"run_kind": "pipeline", "decision": "promoted"})
        retrain.metrics({name: draw.random() for name in shown}, step=None)
        for role in ("teacher", "student", "control"):
            training = Journal("many", role, {"run_kind": "stage", "role": role}, parent=retrain.id)
            for step in range(0, 1500, 100):
                training.metrics({name: draw.random() for name in declared.CURVES.metrics()}, step=step)
            training.end("FINISHED")
        retrain.end("FINISHED")
    tracking.deliver()
    keep("many", "In production: nothing yet.")


def until_drawn(address: str) -> float:
    """Seconds until the first line of the board is drawn, in a browser that has never been there."""
    with tempfile.TemporaryDirectory() as profile, browser.opened(Path(profile), height=1000) as page:
        began = time.monotonic()
        page.goto(address)
        page.get_by_test_id("experiment-view-compare-runs-card").locator("svg.main-svg").first.wait_for(timeout=120_000)
        return time.monotonic() - began


def main() -> None:
    """Measure, and write ``boards.json``."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--retrains", type=int, default=200)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--out", type=Path, default=RESULTS)
    asked = ask.parse_args()
    out = asked.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        database = f"sqlite:///{folder}/mlflow.db"
        os.environ["MLFLOW_TRACKING_URI"] = database
        began = time.monotonic()
        fill(asked.retrains)
        print(f"{asked.retrains} retrains written in {time.monotonic() - began:.0f} s", flush=True)
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        server = subprocess.Popen([*command, "--backend-store-uri", database], env=environment)
        try:
            while not answers(f"http://127.0.0.1:{port}/health"):
                time.sleep(0.5)
            address = f"http://127.0.0.1:{port}/{declared.HEALTH.link('1')}"
            seconds = [until_drawn(address) for _ in range(asked.rounds)]
        finally:
            server.terminate()
            server.wait()
    path = write("boards", [of_rounds(f"board_open_s_{asked.retrains}_retrains", seconds, "s")], out)
    print(f"{sorted(seconds)}; written: {path}")


if __name__ == "__main__":
    main()
