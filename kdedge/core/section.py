"""What every section of a recipe is: frozen, without unknown keys, and without numbers that are none."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
NUMBERS = (int, int | None, float, float | None, Literal[1])


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in NUMBERS:
            raise ValueError("must be a number, not true or false")
        return value


def without_unused(section: Section, plain: dict[str, Any], later: tuple[str, ...]) -> dict[str, Any]:
    """A section as data without what is as ever: what was trained before there were these keys is still the same."""
    unused = {key for key in later if getattr(section, key) == type(section).model_fields[key].default}
    return {key: value for key, value in plain.items() if key not in unused}
