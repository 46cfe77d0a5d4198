"""The ``reflux`` command that all verbs belong to, and the option that most of them have."""

import math
import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

UI_PORT = 5000
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="From a folder of images to a small model a team can trust.",
    epilog="Start with: reflux run",
    context_settings=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Manage your datasets.", context_settings=HELP, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")

Pipeline = Annotated[
    str | None,
    typer.Option(metavar="NAME", envvar="REFLUX_PIPELINE", help="Work in pipelines/NAME instead of this folder."),
]


def finite(number: float | None) -> float | None:
    """Refuse ``nan`` and ``inf``, which a command line takes as numbers, for an option.

    Raises:
        BadParameter: it is one of them.
    """
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number:g} is not a finite number.")
    return number


def span(text: str) -> timedelta:
    """Read a time span: a whole number of hours, days or weeks, such as ``36h``, ``90d`` or ``12w``.

    Raises:
        BadParameter: it is none, or goes back beyond the calendar.
    """
    match = re.fullmatch(r"([0-9]{1,6})([hdw])", text)
    if match is None or (length := int(match[1]) * _UNITS[match[2]]) > timedelta(weeks=5200):
        raise typer.BadParameter(f"{text} is no time span such as 90d: give hours (h), days (d) or weeks (w).")
    return length


def in_pipeline(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the option ``--pipeline``, with which it works in that pipeline's folder.

    Paths among its arguments are relative to the folder that the user is in.
    """

    @wraps(verb)
    def in_its_folder(pipeline: str | None, **arguments: Any) -> None:
        if pipeline:
            from reflux.flows.local.pipelines import enter, folder

            place = folder(pipeline)
            arguments = {name: _seen_from(place, value) for name, value in arguments.items()}
            print(f"In {place}:", file=sys.stderr)
            enter(pipeline)
        verb(**arguments)

    option = Parameter("pipeline", Parameter.KEYWORD_ONLY, default=None, annotation=Pipeline)
    whole = signature(verb)
    vars(in_its_folder)["__signature__"] = whole.replace(parameters=[*whole.parameters.values(), option])
    in_its_folder.__annotations__ = {**verb.__annotations__, "pipeline": Pipeline}
    return in_its_folder


def _seen_from(folder: Path, value: Any) -> Any:
    """Make a path, or text that names an existing file, relative to a folder; other values are returned unchanged."""
    if isinstance(value, list):
        return [_seen_from(folder, each) for each in value]
    is_path = isinstance(value, Path) or (isinstance(value, str) and "/" in value and Path(value).exists())
    return type(value)(os.path.relpath(value, folder)) if is_path and not Path(value).is_absolute() else value
