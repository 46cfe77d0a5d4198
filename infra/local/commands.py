"""``up``, ``status``, ``down`` and ``worker``."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.local import supervisor
from infra.local.parts import busy, check_programs, parts
from infra.local.settings import DEFAULT_STATE, Stack, known_stack, new_stack
from infra.local.worker import become_worker
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.flows.local.environment import QUIET

_SECONDS_TO_START = 600.0
_SECONDS_BETWEEN_LOOKS = 0.2
_RUN = Path(__file__).with_name("run.py")

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
State = Annotated[Path, typer.Option(metavar="DIR", help="Its data, logs and secrets.")]


@app.command(epilog="Example: REFLUX_MLFLOW_PORT=5001 infra/local/up --state /var/lib/reflux")
def up(state: State = DEFAULT_STATE) -> None:
    """Start Postgres, S3, MLflow, Prefect and two workers on this machine, and wait until all answer.

    Parts that run already are left alone. Any REFLUX_ name of infra/settings.env can be set in the environment. Exit
    codes: 0 all answer, 2 user error.
    """
    state = state.resolve()
    if supervisor.alive(state):
        stack = known_stack(state)
    else:
        check_programs()
        stack = new_stack(state)
        if taken := busy(stack):
            raise UserError(taken)
        _start(stack)
    _wait(stack)
    for part in parts(stack):
        print(f"{part.name:<11} {part.at}")
    print(f"\nUse it:  set -a; . {stack.client_file}; set +a")
    print("The same login opens the pages of MLflow and Prefect: MLFLOW_TRACKING_USERNAME, PREFECT_API_AUTH_STRING.")


@app.command(epilog="Example: infra/local/status")
def status(state: State = DEFAULT_STATE) -> None:
    """Show each part. Exit codes: 0 all answer, 1 one does not, 2 user error."""
    stack = known_stack(state.resolve())
    _, _, records = supervisor.records(stack.state)
    running = supervisor.alive(stack.state)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("part", "state", "address", "pid", "for", "restarts"):
        table.add_column(column, justify="right" if column in ("pid", "for", "restarts") else "left")
    healthy = running
    for part in parts(stack):
        record = records.get(part.name) if running else None
        alive = bool(record and record.pid)
        is_up = alive and part.is_up()
        healthy = healthy and is_up
        state_now = "answers" if is_up else "does not answer" if alive else "is down"
        lasted = f"{time.time() - record.since:.0f} s" if record and alive else ""
        pid, restarts = (str(record.pid), str(record.restarts)) if record and alive else ("", "")
        table.add_row(part.name, state_now, part.at, pid, lasted, restarts)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    raise typer.Exit(0 if healthy else 1)


@app.command(epilog="Example: infra/local/down --purge")
def down(
    state: State = DEFAULT_STATE,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its data and secrets as well.")] = False,
) -> None:
    """End every process of the stack; its data stays."""
    state = state.resolve()
    if supervisor.alive(state):
        pid, _, _ = supervisor.records(state)
        if pid:
            os.kill(pid, signal.SIGTERM)
        _until_ended(state)
    if purge:
        if state.exists() and not (state / "servers.env").is_file():
            raise UserError(f"{state} holds no stack, so nothing is removed: name its folder with --state.")
        shutil.rmtree(state, ignore_errors=True)


@app.command(epilog="Example: infra/local/worker gpu --name gpu0")
def worker(
    pool: Annotated[str, typer.Argument(help="The work pool: cpu or gpu.")],
    name: Annotated[str | None, typer.Option(help="Tells this machine's workers apart; by default the pool's.")] = None,
    home: Annotated[Path, typer.Option(metavar="DIR", help="The workers' cache and clones.")] = Path(".reflux/worker"),
) -> None:
    """Take runs from a pool, one at a time, until stopped; the variables of stack.env must be set."""
    become_worker(pool, name or pool, home)


@app.command(hidden=True)
def supervise(state: State) -> None:
    """Supervise the stack."""
    supervisor.supervise(known_stack(state))


def main() -> None:
    """Run the command; a user error is one sentence and exit code 2."""
    os.environ.update(QUIET)
    try:
        app()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def _start(stack: Stack) -> None:
    (stack.state / "parts.json").unlink(missing_ok=True)
    with supervisor.log_of(stack, "supervisor").open("w", encoding="utf-8") as log:
        subprocess.Popen(
            [sys.executable, str(_RUN), "supervise", "--state", str(stack.state)],
            cwd=stack.state,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(stack: Stack) -> None:
    """Wait until every part has come up and answers.

    Raises:
        UserError: the supervisor has ended, or it took too long.
    """
    deadline = time.monotonic() + _SECONDS_TO_START
    log = supervisor.log_of(stack, "supervisor")
    was_alive = False
    while not supervisor.records(stack.state)[1] or not all(part.is_up() for part in parts(stack)):
        alive = supervisor.alive(stack.state)
        was_alive = was_alive or alive
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:] if log.is_file() else []
        if (was_alive and not alive) or (last and last[0].startswith("Error: ")):
            raise UserError(f"The stack did not come up: {(last or [str(log)])[0].removeprefix('Error: ')}")
        if time.monotonic() > deadline:
            raise UserError(f"The stack did not come up in {_SECONDS_TO_START:.0f} s: {log.parent} says why.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _until_ended(state: Path) -> None:
    deadline = time.monotonic() + 120
    while supervisor.alive(state):
        if time.monotonic() > deadline:
            raise UserError(f"The stack in {state} does not end: its supervisor's log there says what it waits for.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
