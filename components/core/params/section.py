"""The base of every section of ``params.yaml``, and the types that sections share."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
