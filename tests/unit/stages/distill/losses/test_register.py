import pytest

from reflux.components.core.params.distill import METHODS, Loss
from reflux.components.stages.distill.losses.register import LOSSES, loss


def test_every_loss_of_the_params_is_registered_and_no_other():
    assert LOSSES.keys() == {name for name, kind in METHODS.items() if issubclass(kind, Loss)}


def test_a_second_registration_is_refused_and_the_first_stays():
    first = LOSSES["kd"]
    with pytest.raises(ValueError, match="Two losses are named kd"):

        @loss("kd")
        def other() -> None: ...

    assert LOSSES["kd"] is first
