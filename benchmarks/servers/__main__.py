"""What shared servers take of a retrain, and how they answer when there are many.

    .venv/bin/python -m benchmarks.servers        # half an hour on two cores; needs Postgres, and Reflux with .[stack]

It starts ``infra/local`` (Postgres, S3, MLflow with one worker, Prefect) in a folder of its own, on the ports of
``infra/settings.env``. A tiny retrain is recorded: its ten runs in MLflow with their curves, pictures and files, and
its eleven tasks in Prefect. 1, 10 and 100 clients then report it again at once, as retrains of as many teams that
compute nothing; four processes share the clients, and all share the cores with the servers. Then rows of real runs and
versions are copied in Postgres, and MLflow gets the HTTP requests of Reflux and its users: with up to 10,000 runs in
one experiment, and up to 1,000 versions of one model with their decisions.

CPU seconds are those of a server's whole process tree, memory is its largest proportional share (PSS), both while the
clients are at work. Low and high are the extremes: of the clients, or of five tries.
"""

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from benchmarks.harness.results import argument_parser, publish
from benchmarks.servers.loads import CLIENTS, at_once, many_runs, many_versions
from benchmarks.servers.recorded import record
from benchmarks.servers.stack import local_stack
from reflux.components.core.params.file import load_params
from reflux.flows.local.environment import QUIET


def main() -> None:
    """Measure, and write ``servers.json``."""
    out = argument_parser(__doc__).parse_args().out.resolve()
    quiet = {f"PREFECT_LOGGING_{name}_LEVEL": "CRITICAL" for name in ("LOGGERS_PREFECT", "HANDLERS_CONSOLE")}
    os.environ.update(QUIET | quiet)
    with tempfile.TemporaryDirectory() as folder, local_stack() as stack:
        scratch = Path(folder)
        checkout = record(scratch)
        outbox = checkout / ".reflux" / "outbox"
        with contextlib.chdir(checkout):
            params = load_params()
            loads = [at_once(stack, outbox, scratch, clients) for clients in CLIENTS]
            loads += [many_runs(stack, outbox, scratch, params), many_versions(stack, params)]
            publish("servers", itertools.chain(*loads), out)


if __name__ == "__main__":
    main()
