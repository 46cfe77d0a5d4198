"""The one exception that a user can fix."""

from collections.abc import Sequence


class UserError(Exception):
    """One sentence that says what is wrong, where, and how to fix it; commands exit with its code."""

    exit_code = 2


EXIT_USER_ERROR = UserError.exit_code


def listed(items: Sequence[object], limit: int) -> str:
    """The first ``limit`` items in words, and how many more there are: ``a, b and 3 more``."""
    text = ", ".join(str(item) for item in items[:limit])
    return f"{text} and {len(items) - limit:,} more" if len(items) > limit else text
