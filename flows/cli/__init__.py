"""The ``reflux`` command: a thin function a verb, which imports what it needs, so that ``-h`` is instant."""

import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path

from typer import TyperException

from reflux.components.core.artifacts import translate_os_error
from reflux.components.core.errors import UserError
from reflux.flows.cli import learning, models, servers  # in the order of -h
from reflux.flows.cli.app import app
from reflux.flows.local.environment import QUIET

__all__ = ["app", "learning", "main", "models", "servers"]


def main() -> None:
    """Run the command; a user error is one sentence and its exit code, mostly 2."""
    os.environ.update(QUIET)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a file's name may be no text
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a command which is killed also tidies up
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        _complain(error)
    except TyperException as error:
        from reflux.flows.cli.usage import refusal

        if "\n" in error.message:  # the help, of a command that needs more
            print(error.message, file=sys.stderr)
            sys.exit(UserError.exit_code)
        _complain(refusal(error))
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        user_error = translate_os_error(error, Path(error.filename or "."))
        if not isinstance(user_error, UserError):
            raise
        _complain(user_error)


def _complain(error: UserError) -> None:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
