"""A training run of the stage that is killed and resumed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from reflux.components.stages.finetune import __main__ as finetune


class Killed(Exception):
    """Stands for what ends a process at a bad moment."""


def steps_of_resumed(
    train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, moment: int, *settings: str
) -> int:
    """Kill a run in one of its steps and resume it, which must end as if it were whole; returns the steps of both."""
    whole = train(*settings)
    steps, cross_entropy, until = 0, finetune.cross_entropy, moment

    def cut_off(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == until:
            raise Killed
        return cross_entropy(*args, **kwargs)

    monkeypatch.setattr(finetune, "cross_entropy", cut_off)
    with pytest.raises(Killed):
        train(*settings)
    until = None
    resumed = train(*settings)
    one, other = (call["model"].state_dict() for call in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    return steps
