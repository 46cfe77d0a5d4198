"""``python -m components.preflight [section.key=value …]``: checks the params, with these assignments, before training.

It ends with 0 and leaves its facts where :mod:`components.preflight.facts` says, or with 2 and one sentence.
"""

import sys
from typing import Any

from components.core.artifacts import read_json, write_json
from components.core.errors import EXIT_USER_ERROR, UserError
from components.core.params.file import check_overrides
from components.core.params.sections import Params
from components.preflight import checks
from components.preflight.facts import student_file, whole_file
from components.preflight.rehearsal import rehearse


def main(assignments: list[str]) -> None:
    """Check what can be known, the cheapest first, and write the facts.

    Raises:
        UserError: training would end in an error.
    """
    params = check_overrides(assignments)
    checks.seeded()
    checks.check_device(params)
    checks.check_weights(params)
    checks.check_networks(params)
    write_json(whole_file(params), exported(params))


def exported(params: Params) -> dict[str, Any]:
    """The facts of the exported student, from an earlier preflight if there was one.

    Raises:
        UserError: it can't be exported.
    """
    known = student_file(params)
    if not known.is_file():
        # With the fewest classes: the least that the file can weigh.
        student = checks.untrained(params.student.model, params.student.image_size, params.ingest.channels, ("a", "b"))
        write_json(known, rehearse(student, params.compress.max_logit_difference))
    facts: dict[str, Any] = read_json(known)
    return facts


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
