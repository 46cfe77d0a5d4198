"""What the rules of a plan work with: what the user asks for, what validation images said, and a choice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

SLACK = 0.9  # of the time is planned: estimates are off by some percent


@dataclass(frozen=True)
class Choice:
    """A param's value, and the reason for it."""

    param: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; None leaves it to the rules.

    Attributes:
        minutes: for the whole run.
        max_kb: that the file that ships may have.
        min_accuracy: of the student, on the test split.
        own_teacher: the one that the params name stays.
    """

    minutes: float = 10.0
    max_kb: float | None = None
    min_accuracy: float | None = None
    own_teacher: bool = False

    @property
    def seconds(self) -> float:
        """Those that are planned with."""
        return SLACK * 60 * self.minutes


@dataclass(frozen=True)
class Answers:
    """What validation images said, each None if they were not asked.

    Attributes:
        flip: mirroring keeps the class; also None if the images were too few to tell.
        flip_reason: how that was found.
        teacher_size: the teacher's image size.
        teacher_reason: how that was found.
    """

    flip: bool | None = None
    flip_reason: str = ""
    teacher_size: int | None = None
    teacher_reason: str = ""


def as_assignments(chosen: Sequence[Choice]) -> list[str]:
    """The choices as ``section.key=value``, for ``params.yaml``."""
    return [f"{choice.param}={_as_yaml(choice.value)}" for choice in chosen]


def _as_yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_as_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """True if YAML reads the same text without quotes."""
    try:
        return bool(YAML(typ="safe").load(text) == text)
    except YAMLError:
        return False
