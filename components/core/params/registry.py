"""The section ``registry``: the gates, the rule for a new champion, and whose approval it takes."""

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from reflux.components.core.contract import FIGURES, Figure
from reflux.components.core.params.section import Fraction, Positive, Section, add_param

DEVICE = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # a device's name, in the gate and in its reports
_SHARES = ("accuracy", "f1", "recall", "ece", "gain")  # how the names of figures from 0 to 1 end


class Bound(Section):
    min: float | None = Field(None, allow_inf_nan=False)
    max: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def can_be_passed(self) -> "Bound":
        if self.min is None and self.max is None:
            raise ValueError("a gate needs a min or a max")
        if self.max is not None and self.max < 0:
            raise ValueError(f"max = {self.max:g} can't be passed, because no figure is below 0")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} is above max = {self.max:g}, so nothing can pass")
        return self


class SureBound(Bound):
    """Limits that a figure must keep to with a confidence; None compares the figure as it was measured."""

    confidence: float | None = Field(None, ge=0.5, lt=1)

    @model_validator(mode="after")
    def can_be_passed_surely(self) -> "SureBound":
        if self.confidence is not None and (self.min == 1 or self.max == 0):
            raise ValueError("no number of images shows a share of exactly 0 or 1 with a confidence; leave some room")
        return self


class DeviceBound(Bound):
    """Limits of a figure that a device can report.

    Attributes:
        device: whose report of the file has the figure; null takes the one of the machine that evaluates.
    """

    device: str | None = Field(None, pattern=DEVICE)


def _share(bound: Bound) -> Bound:
    """Refuse a percentage as the limit of a share."""
    for side, limit in (("min", bound.min), ("max", bound.max)):
        if limit is not None and limit > 1:
            raise ValueError(f"{side} = {limit:g} is above 1, and it limits a share: write 0.9 for 90 %")
    return bound


class Gates(Section):
    accuracy: SureBound | None = None
    macro_f1: Bound | None = None
    worst_class_recall: Bound | None = None
    ece: Bound | None = None
    size_kb: Bound | None = None
    latency_ms_p95: DeviceBound | None = None
    params: Bound | None = None
    corrupted_accuracy: Bound | None = None
    noise_accuracy: SureBound | None = None
    blur_accuracy: SureBound | None = None
    brightness_accuracy: SureBound | None = None
    jpeg_accuracy: SureBound | None = None
    gain: SureBound | None = None

    @field_validator("*")
    @classmethod
    def shares_are_no_percentages(cls, value: Bound | None, info: ValidationInfo) -> Bound | None:
        name = str(info.field_name)
        return _share(value) if value and (name.endswith(_SHARES) or FIGURES[name].share) else value


def gate_on(name: str, figure: Figure) -> None:
    """Let ``registry.gates`` bound one more figure, once the sections are rebuilt.

    Args:
        name: of the gate.
        figure: its name for people. One that is a share of the test images takes a ``confidence``, too.

    Raises:
        ValueError: the name is taken.
    """
    FIGURES.add(name, figure)
    add_param(Gates, name, (SureBound if figure.share else Bound) | None, None)


class SliceGates(Section):
    accuracy: SureBound

    @field_validator("accuracy")
    @classmethod
    def is_no_percentage(cls, value: SureBound) -> Bound:
        return _share(value)


class Slices(Section):
    min_count: Positive = 30
    gates: dict[str, SliceGates] = Field({})


class ChampionRule(Section):
    margin: Fraction = 0.01
    alpha: Fraction = 0.05
    smaller: float = Field(1.1, gt=1, allow_inf_nan=False)
    faster: float = Field(1.25, gt=1, allow_inf_nan=False)


class Registry(Section):
    model_name: str = Field(min_length=1)
    gates: Gates = Gates()
    slices: Slices = Slices()
    champion: ChampionRule = ChampionRule()
    worse_than_control: Literal["refuse", "allow"] = "refuse"
    approval: Literal["auto", "human"] = "auto"

    @field_validator("model_name")
    @classmethod
    def is_a_name_for_mlflow(cls, value: str) -> str:
        if re.search(r"[/:.%\"']", value):
            raise ValueError("it must not contain any of / : . % and quotes")
        return value
