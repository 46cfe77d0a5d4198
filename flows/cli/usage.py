"""A command line that can't be parsed, in one sentence that names the option, the value and what is allowed."""

from pydantic import ValidationError
from typer import TyperException

from reflux.components.core.errors import UserError
from reflux.components.core.params.file import reason


def refusal(error: TyperException) -> UserError:
    """Say what is wrong with a command line, and where its help is."""
    context, param, cause = (getattr(error, name, None) for name in ("ctx", "param", "__cause__"))
    place = param and param.opts[0]
    if isinstance(cause, ValidationError):
        problem = cause.errors()[0]
        given = str(problem["input"])
        written = given if given and given.isprintable() else repr(given)
        return UserError(f"{place} {written} is refused: {reason(problem)}.")
    if place and error.message:  # of a callback; a missing one has no message
        return UserError(f"{place}: {error.message}")
    said = error.format_message()
    after = said if said.endswith("?") else f"{said.rstrip('.')}:"
    return UserError(f"{after} `{context.command_path if context else 'reflux'} -h` says what it takes.")
