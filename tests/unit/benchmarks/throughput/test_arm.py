import pytest

from benchmarks.throughput.arm import Arm, check_agreement
from benchmarks.throughput.setting import Setting

SETTING = Setting("resnet8_slim", "resnet50", 64, 16, 1, "")


@pytest.mark.parametrize(
    ("switches", "loss", "agrees"),
    [
        ({}, 2.3, True),
        ({}, 2.3001, False),
        ({"bf16": True}, 2.31, True),
        ({"bf16": True}, 2.4, False),
        ({}, float("nan"), False),
    ],
)
def test_an_arm_that_trains_something_else_is_not_timed(switches: dict[str, bool], loss: float, agrees: bool):
    arms = {
        "one": Arm("bare", SETTING, loss=2.3),
        "two": Arm("store", SETTING, loss=2.300002),
        "other": Arm("live", SETTING, switches, loss=loss),
    }
    if agrees:
        check_agreement(arms)
    else:
        with pytest.raises(SystemExit, match="does not train the same"):
            check_agreement(arms)
