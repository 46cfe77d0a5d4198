"""``python -m reflux.components.advice.plan CLASSES shared|alone [section.key=value …]``: measures what a plan needs.

Student and control share the cores, or one of them has them alone.

It ends with 0, or with 2 and one sentence.
"""

import sys

from reflux.components.advice.plan.times import measured
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import check_overrides


def main(classes: int, shared: bool, assignments: list[str]) -> None:
    """Measure what is not kept yet.

    Raises:
        UserError: a network is unknown or can't take such images, or the device is not there.
    """
    measured(check_overrides(assignments), classes, shared)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2] == "shared", sys.argv[3:])
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
