"""How long a board takes to open in a browser when an experiment has many retrains.

    .venv/bin/python -m benchmarks.servers.boards                  # 200 retrains, some minutes

The retrains are journals that a courier delivers to a real MLflow server of one worker on SQLite: each with every
metric that the boards show, and the child runs of three stages that train. ``board_open_s`` is the time from the
address to the first drawn line of "Retraining health", in Debian's chromium with an empty cache and a window of 1600 by
1000 pixels: what is below the window is not drawn, and costs nothing. Low and high are of the rounds.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import browser
from benchmarks.harness.results import argument_parser, of_rounds, publish
from reflux.components.core.runtime import tracking
from reflux.components.core.runtime.journal import Journal
from reflux.components.observe.boards import declared
from reflux.components.observe.boards.keep import keep
from reflux.flows.local.prefect_server import free_port, is_up


def fill(retrains: int) -> None:
    """Deliver the journals of many retrains to MLflow, and make their boards."""
    draw = random.Random(0)  # noqa: S311 - figures for a picture
    names = sorted(
        frozenset().union(*(board.metrics() for board in declared.BOARDS.values() if board is not declared.CURVES))
    )
    for number in range(retrains):
        retrain = Journal("many", f"retrain-{number}", {"run_kind": "pipeline", "decision": "promoted"})
        retrain.metrics({name: draw.random() for name in names}, step=None)
        for role in ("teacher", "student", "control"):
            stage = Journal("many", role, {"run_kind": "stage", "role": role}, parent=retrain.id)
            for step in range(0, 1500, 100):
                stage.metrics({name: draw.random() for name in declared.CURVES.metrics()}, step=step)
            stage.end("FINISHED")
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
    parser = argument_parser(__doc__)
    parser.add_argument("--retrains", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    out = options.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        database = f"sqlite:///{folder}/mlflow.db"
        os.environ["MLFLOW_TRACKING_URI"] = database
        began = time.monotonic()
        fill(options.retrains)
        print(f"{options.retrains} retrains written in {time.monotonic() - began:.0f} s", flush=True)
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        server = subprocess.Popen([*command, "--backend-store-uri", database], env=environment)
        try:
            while not is_up(f"http://127.0.0.1:{port}/health"):
                time.sleep(0.5)
            address = f"http://127.0.0.1:{port}/{declared.HEALTH.link('1')}"
            seconds = [until_drawn(address) for _ in range(options.rounds)]
        finally:
            server.terminate()
            server.wait()
    publish("boards", [of_rounds(f"board_open_s_{options.retrains}_retrains", seconds, "s")], out)


if __name__ == "__main__":
    main()
