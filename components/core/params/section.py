"""The base of every section of ``params.yaml``, and the types that sections share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

AboveZero = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen part of the params that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())
