"""The one exception that a user can fix."""

import re
from collections.abc import Sequence

# Controls (a tab is harmless), line ends, and what turns the order of letters around.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of show: names of files and tags are written by anybody.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(Exception):
    """One sentence that says what is wrong, where, and how to fix it; commands exit with its code."""

    exit_code = 2

    def __str__(self) -> str:
        return printable(super().__str__())


EXIT_USER_ERROR = UserError.exit_code


def listed(items: Sequence[object], limit: int) -> str:
    """The first ``limit`` items in words, and how many more there are: ``a, b and 3 more``."""
    text = ", ".join(str(item) for item in items[:limit])
    return f"{text} and {len(items) - limit:,} more" if len(items) > limit else text
