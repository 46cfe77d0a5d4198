"""What shared servers take of a retrain, and how they answer when there are many.

    .venv/bin/python -m benchmarks.servers        # half an hour on two cores; needs Postgres, and Reflux with .[stack]

It starts ``infra/local`` (Postgres, S3, MLflow with one worker, Prefect) in a folder of its own, on the ports of
``infra/settings.env``. A tiny retrain is recorded: its ten runs in MLflow with their curves, pictures and files, and
its eleven tasks in Prefect. 1, 10 and 100 clients then tell it again at once, as retrains of as many teams that compute
nothing; four processes share the clients, and all share the cores with the servers. Then rows of real runs and versions
are copied in Postgres, and MLflow is asked over HTTP what Reflux and its users ask: with up to 10,000 runs in one
experiment, and up to 1,000 versions of one model with their decisions.

CPU seconds are those of a server's whole process tree, memory is its largest proportional share (PSS), both while the
clients are at work. Low and high are the extremes: of the clients, or of five tries.
"""

import argparse
import itertools
import os
import tempfile
from pathlib import Path

from benchmarks.results import RESULTS, write
from benchmarks.servers import recorded
from benchmarks.servers.loads import CLIENTS, at_once, many_runs, many_versions
from benchmarks.servers.stack import local_stack
from components.core.params.file import load_params
from flows.local.environment import QUIET


def main() -> None:
    """Measure, and write ``servers.json``."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--out", type=Path, default=RESULTS)
    out = ask.parse_args().out.resolve()
    quiet = {f"PREFECT_LOGGING_{which}_LEVEL": "CRITICAL" for which in ("LOGGERS_PREFECT", "HANDLERS_CONSOLE")}
    os.environ.update(QUIET | quiet)
    figures = []
    with tempfile.TemporaryDirectory() as folder, local_stack() as stack:
        scratch = Path(folder)
        project = recorded.record(scratch)
        outbox = project / ".reflux" / "outbox"
        os.chdir(project)
        params = load_params()
        loads = (at_once(stack, outbox, scratch, clients) for clients in CLIENTS)
        for figure in itertools.chain(*loads, many_runs(stack, outbox, scratch, params), many_versions(stack, params)):
            print(
                f"{figure.name:50} {figure.value:9.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}", flush=True
            )
            figures.append(figure)
        os.chdir(out)
    print(f"Written: {write('servers', figures, out)}")


if __name__ == "__main__":
    main()
