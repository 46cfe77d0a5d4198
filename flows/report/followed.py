"""A process that a command starts, followed on the screen."""

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence

from reflux.components.core.errors import printable
from reflux.components.core.runtime.progress import EVENTS_VARIABLE, RECORD
from reflux.flows.local.supervised import stop, supervised
from reflux.flows.report.display import Display, LiveDisplay, console


def follow(name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, list[str]]:
    """Run a command in a process of its own, which has the environment of stages, and show its progress.

    Args:
        name: under which the progress is shown.
        command: the program and its arguments.
        environment: variables that go before this process's own.

    Returns:
        Its exit code, and the lines that it printed apart from progress and notes.
    """
    variables = {EVENTS_VARIABLE: "1", **(environment or {})}
    process = supervised(list(command), variables, stdout=subprocess.PIPE)
    screen, logger = console(), logging.getLogger(__name__)
    try:
        if screen.is_terminal:
            with LiveDisplay(screen, logger, (name,)) as display:
                return _followed(name, process, display)
        return _followed(name, process, Display(lambda text: print(text, flush=True), logger, (name,)))
    finally:
        stop(process)


def _followed(name: str, process: "subprocess.Popen[str]", display: Display) -> tuple[int, list[str]]:
    assert process.stdout is not None  # noqa: S101 - opened as a pipe above
    lines = []
    display.begin(name)
    display.executing(name)
    for line in process.stdout:
        text = line.rstrip()
        if text.startswith(RECORD):
            try:
                display.event(name, json.loads(text.removeprefix(RECORD)))
            except json.JSONDecodeError:  # cut short by a kill, or mixed with another process's
                continue
        elif text := printable(text):
            lines.append(text)
            display.line(name, text)
    return process.wait(), lines
