"""The base of every section of ``params.yaml``, and the types that sections share."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

AboveZero = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
# Of contract.FILES, as params name them.
Ships = Literal[
    "onnx", "onnx-int8", "executorch", "executorch-int8", "litert", "litert-int8", "openvino", "openvino-int8"
]


class Section(BaseModel):
    """A frozen part of the params that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def true_is_no_number(cls, section: Any) -> Any:
        """Refuse true and false where a number is wanted: pydantic would take them for 1 and 0."""
        given = section if isinstance(section, dict) else {}
        for name, field in cls.model_fields.items():
            wanted = (field.annotation, *get_args(field.annotation))
            if isinstance(given.get(name), bool) and any(each in (int, float) or type(each) is int for each in wanted):
                kind = "int_type" if field.annotation is int else "float_type"
                raise ValidationError.from_exception_data(
                    cls.__name__, [{"type": kind, "loc": (name,), "input": given[name]}]
                )
        return section


def add_param(section: type[Section], name: str, annotation: Any, default: Any) -> None:
    """Give a section one more param, which it knows once it is rebuilt."""
    section.model_fields[name] = FieldInfo.from_annotated_attribute(annotation, default)


def rebuild(sections: Sequence[type[Section]]) -> None:
    """Let sections, inner ones first, know the params that were added to them or to those in them."""
    for section in sections:
        for field in section.model_fields.values():
            if isinstance(preset := field.default, Section):
                field.default = type(preset)(**preset.model_dump(exclude_unset=True))
        section.model_rebuild(force=True)
