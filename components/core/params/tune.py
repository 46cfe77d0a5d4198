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
    """The knobs of a search, each with the reason for its range. None leaves a range to the student's own params.

    Attributes:
        network: depth: one and two blocks a stage, with the stem of stride 2 that makes a phone's network four times as
            fast.
        width: of the small networks' channels: resnet8_slim at a half is resnet8_tiny, 51 KB in fp32; at 1.25 it takes
            290 KB.
        image_size: by default the present one and three quarters of it, which takes half of the time an image and no
            other soft labels.
        method: by default the present one. Others are searched where they are named, as each needs trials of its own.
        temperature: from the plain softmax, best where most images have no label, to the literature's for those that
            have.
        label_weight: from soft labels alone to labels at full weight: which is right depends on how many images have
            labels.
        lr: three times below and above AdamW's usual 0.01 for such networks; SGD wants more.
        weight_decay: from next to none to more than timm's recipes have.
        steps: of a network at its full width, by default from half of the present student's to all of them. At half
            the width they are doubled: that takes about the same time, and the device pays nothing for it. Three times
            as many gained 0.4 points at three times the cost.
        ema_decay: averages over a hundred steps, or none; longer ones have not come down by the end of a short training
            run.
        mixup: the share of views that are blended with another one, from none to half; soft labels are blended as they
            are.
        ships: the file that ships, and the present one: int8 takes about 1.2 bytes a parameter, fp32 four and its
            overhead.
    """

    network: Names = ("resnet8_slim", "resnet14_slim")
    width: AboveZeroRange = (0.5, 1.25)
    image_size: Sizes | None = None
    method: Names | None = None
    temperature: AboveZeroRange = (1.0, 4.0)
    label_weight: NonNegativeRange = (0.0, 1.0)
    lr: AboveZeroRange = (0.003, 0.03)
    weight_decay: NonNegativeRange = (0.001, 0.1)
    steps: StepsRange | None = None
    ema_decay: Decays = (0.0, 0.99)
    mixup: FractionRange = (0.0, 0.5)
    ships: Files = ("onnx", "onnx-int8")


class Tune(Section):
    """What ``reflux tune`` searches."""

    space: Space = Space()
