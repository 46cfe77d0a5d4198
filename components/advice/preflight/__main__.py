"""``python -m reflux.components.advice.preflight [section.key=value …]``: checks params before training.

It ends with 0 and leaves its facts where :mod:`reflux.components.advice.preflight.facts` says, or with 2 and one
sentence. The stage ``installed`` of ``dvc.yaml`` runs it, so that it comes before training in a ``dvc repro``, too.
"""

import sys
from typing import Any

from reflux.components.advice.preflight.facts import refuse_hopeless_gates, student_file, whole_file
from reflux.components.advice.preflight.sources import check_sources
from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import check_overrides
from reflux.components.core.params.sections import Params


def main(assignments: list[str]) -> None:
    """Check what can be known and write the facts, unless an earlier preflight has; then torch is not imported.

    Raises:
        UserError: training would end in an error, or nothing could pass the gates.
    """
    params = check_overrides(assignments)
    check_sources(params)
    facts = whole_file(params)
    if not facts.is_file():
        write_json(facts, checked(params))
    gates = params.registry.gates.model_dump(exclude_none=True)
    refuse_hopeless_gates(read_json(facts), gates, params.student.model, params.compress.ships)


def checked(params: Params) -> dict[str, Any]:
    """The facts of the exported student, from an earlier preflight if there was one, after all other checks.

    Raises:
        UserError: a name, a layer, weights or the device are wrong, or the student can't be exported.
    """
    from reflux.components.advice.preflight import checks
    from reflux.components.advice.preflight.rehearsal import rehearse
    from reflux.components.stages.pretrain.pruning import prune

    checks.seeded()
    checks.check_device(params)
    checks.check_weights(params)
    checks.check_networks(params)
    known = student_file(params)
    if not known.is_file():
        # With the fewest classes: the least that the file can weigh.
        student = checks.untrained(params.student.model, params.student.image_size, params.ingest.channels, ("a", "b"))
        if params.student.prune:
            student = prune(student, params.student.prune)
        write_json(known, rehearse(student, params.compress.ships, params.compress.max_logit_difference))
    facts: dict[str, Any] = read_json(known)
    return facts


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(EXIT_USER_ERROR)
