"""The speed of this machine, measured in a process that has the environment of stages."""

import subprocess
import sys
from collections.abc import Sequence

from reflux.components.advice.plan.times import measurements
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import check_overrides
from reflux.flows.local.supervised import output_of, supervised
from reflux.flows.repo.stages import own_sentence


def measure(assignments: Sequence[str], classes: int, shared: bool = True) -> dict[str, float]:
    """Time the networks of the params; what was timed before costs nothing.

    Args:
        assignments: of the params, which ``params.yaml`` does not have yet.
        classes: of the dataset.
        shared: student and control train at the same time.

    Raises:
        UserError: a network is unknown or can't take such images, or the device is not there.
    """
    params = check_overrides(list(assignments))
    asked = measurements(params, classes, shared)
    if any(each.kept() is None for each in asked.values()):
        teacher = f"{params.pretrain.model} at {params.finetune.image_size}"
        student = f"{params.student.model} at {params.student.image_size}"
        print(f"Measuring, once, how fast this machine is with {teacher} and {student} pixels …", flush=True)
        command = [
            sys.executable,
            "-m",
            "reflux.components.advice.plan",
            str(classes),
            "shared" if shared else "alone",
            *assignments,
        ]
        code, lines = output_of(supervised(command, {}, stdout=subprocess.PIPE))
        if code == EXIT_USER_ERROR:
            raise UserError(own_sentence(lines))
        if code != 0:
            raise UserError(f"How fast this machine is could not be measured ({own_sentence(lines)}).")
    return {name: each() for name, each in asked.items()}
