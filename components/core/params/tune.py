"""The section ``tune``: the students that ``reflux tune`` searches.

A knob is a range, [lowest, highest], or a list of choices; a single value fixes it. A knob that ``params.yaml`` leaves
out also has the value that its param has there, so that the present student is one of those searched.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from reflux.components.core.params.section import AboveZero, Fraction, NonNegative, Positive, Section, Ships


def _as_range(value: Any) -> Any:
    """One value is a range that holds nothing else."""
    return [value, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_choices(value: Any) -> Any:
    """One value is the only choice."""
    return value if isinstance(value, list | tuple) else [value]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("a range begins with its lowest value: [lowest, highest]")
    return value


_ALONE, _ORDERED = BeforeValidator(_as_range), AfterValidator(_ordered)
_LISTED, _NOT_EMPTY = BeforeValidator(_as_choices), Field(min_length=1)

AboveZeroRange = Annotated[tuple[AboveZero, AboveZero], _ALONE, _ORDERED]
NonNegativeRange = Annotated[tuple[NonNegative, NonNegative], _ALONE, _ORDERED]
FractionRange = Annotated[tuple[Fraction, Fraction], _ALONE, _ORDERED]
StepsRange = Annotated[tuple[Positive, Positive], _ALONE, _ORDERED]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], _LISTED, _NOT_EMPTY]
Sizes = Annotated[tuple[Positive, ...], _LISTED, _NOT_EMPTY]
Decays = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], _LISTED, _NOT_EMPTY]
Files = Annotated[tuple[Ships, ...], _LISTED, _NOT_EMPTY]


class Space(Section):
    """The knobs of a search, each with the reason for its range. None leaves a range to the student's own params."""

    # Depth: one and two blocks a stage, with the stem of stride 2 that makes a phone's network four times as fast.
    network: Names = ("resnet8_slim", "resnet14_slim")
    # Of the small networks' channels: resnet8_slim at a half is resnet8_tiny, 51 KB in fp32; at 1.25 it takes 290 KB.
    width: AboveZeroRange = (0.5, 1.25)
    # None: the present one and three quarters of it, which takes half of the time an image and no other soft labels.
    image_size: Sizes | None = None
    # None: the present one. Others are searched where they are named, as each needs trials of its own.
    method: Names | None = None
    # From the plain softmax, best where most images have no label, to the literature's for those that have.
    temperature: AboveZeroRange = (1.0, 4.0)
    # From soft labels alone to labels at full weight: which is right depends on how many images have labels.
    label_weight: NonNegativeRange = (0.0, 1.0)
    # Three times below and above AdamW's usual 0.01 for such networks; SGD wants more.
    lr: AboveZeroRange = (0.003, 0.03)
    # From next to none to more than timm's recipes have.
    weight_decay: NonNegativeRange = (0.001, 0.1)
    # None: from half of the present steps to all of them. Three times as many gained 0.4 points at thrice the cost.
    steps: StepsRange | None = None
    # Averages over a hundred steps, or none; longer ones have not come down by the end of a short training run.
    ema_decay: Decays = (0.0, 0.99)
    # The share of views that are blended with another one, from none to half; soft labels are blended as they are.
    mixup: FractionRange = (0.0, 0.5)
    # The file that ships, and the present one: int8 takes about 1.2 bytes a parameter, fp32 four and its overhead.
    ships: Files = ("onnx", "onnx-int8")


class Tune(Section):
    """What ``reflux tune`` searches."""

    space: Space = Space()
