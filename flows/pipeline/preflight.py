"""The checks before training, in a process of their own: a command that finds nothing to check imports no torch."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from reflux.components.advice.preflight.facts import refuse_hopeless_gates, whole_file
from reflux.components.advice.preflight.sources import check_sources
from reflux.components.core.artifacts import read_json
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import check_overrides
from reflux.components.registry.versions import signatures
from reflux.flows.local.pipelines import refuse_shared_names
from reflux.flows.local.supervised import output_of, supervised
from reflux.flows.repo.stages import own_sentence


def preflight(assignments: Sequence[str] = (), meanwhile: Callable[[], object] = lambda: None) -> None:
    """Check what can be known before training; params that were checked before cost nothing.

    Args:
        assignments: of the params, which ``params.yaml`` does not have yet.
        meanwhile: work that is done while a process checks them, if one has to.

    Raises:
        UserError: training would end in an error, nothing could pass the gates, or a key of signatures can't be used.
    """
    signatures.check_keys()
    params = check_overrides(list(assignments))
    refuse_shared_names(params)
    check_sources(params)
    facts = whole_file(params)
    if not facts.is_file():
        print("Checking names, layers and the student's export before anything is trained …", flush=True)
        command = [sys.executable, "-m", "reflux.components.advice.preflight", *assignments]
        code, lines = output_of(supervised(command, {}, stdout=subprocess.PIPE), meanwhile)
        if code == EXIT_USER_ERROR:
            raise UserError(own_sentence(lines))
        if code != 0:  # out of memory, say: the stages themselves may do better
            print(f"Warning: the check ended with code {code} ({own_sentence(lines)}).", file=sys.stderr)
            return
    gates = params.registry.gates.model_dump(exclude_none=True)
    refuse_hopeless_gates(read_json(facts), gates, params.student.model, params.compress.ships)
