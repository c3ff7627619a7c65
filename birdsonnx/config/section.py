"""What the sections of the config share: keys without regard to case, and refusals in our own words."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic import model_validator as validator

from birdsonnx.config.limits import LARGEST
from birdsonnx.config.wording import nearest, refusal, shown, unknown_key


class Section(BaseModel):
    """One object of the config: frozen, strict types, no unknown keys, names without regard to case."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    synonyms: ClassVar[dict[str, str]] = {}
    """Other spellings of a key."""
    elsewhere: ClassVar[dict[str, str]] = {}
    """rmldnn's keys for other tasks, with the task."""

    @validator(mode="before")
    @classmethod
    def _read_keys(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise refusal(f"must be an object {{…}}, got {shown(value)}")
        section: dict[str, Any] = {}
        for key, content in value.items():
            name = cls.synonyms.get(key.lower(), key.lower())
            if name in cls.elsewhere:
                raise refusal(f"this key is for {cls.elsewhere[name]}, which birdsonnx does not support", key)
            if name not in cls.model_fields:
                raise unknown_key(key, content, [*cls.model_fields, *cls.synonyms])
            if name in section:
                raise refusal("this key is given twice", key)
            section[name] = content
        return section


def one_of(*names: str, elsewhere: Mapping[str, str] | None = None, hint: str = "") -> BeforeValidator:
    """A value out of `names`, in any case; those of `elsewhere` are refused with the task they are for."""

    def match(value: Any) -> Any:
        by_lower = {name.lower(): name for name in names}
        if isinstance(value, str):
            if value.lower() in by_lower:
                return by_lower[value.lower()]
            if elsewhere and value.lower() in elsewhere:
                raise refusal(
                    f"{shown(value)} is for {elsewhere[value.lower()]}, which birdsonnx does not support (it "
                    f"has {', '.join(names)})"
                )
        guess = nearest(value, names) if isinstance(value, str) else ""
        raise refusal(f"{shown(value)} is not one of {', '.join(names)}{guess or hint}")

    return BeforeValidator(match)


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Fraction = Annotated[float, Field(ge=0, lt=1)]

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise refusal(f"a NUL character is in no name, got {shown(text)}")
    return text


Text = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"pattern": r"^[^\u0000]*$"}),
    AfterValidator(_without_nul),
]


def kinds_of(union: Any) -> tuple[str, ...]:
    """The names of a union's section classes, which are the values of their `type`."""
    return tuple(section.__name__ for section in get_args(union))


def typed(
    kinds: tuple[str, ...], elsewhere: dict[str, str] | None = None, default: str = ""
) -> BeforeValidator:
    """Settle an object's `type`, in any case, so that pydantic can pick the section class."""

    def settle(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        section = {key: content for key, content in value.items() if key.lower() != "type"}
        name = next((content for key, content in value.items() if key.lower() == "type"), default)
        if not name:
            raise refusal(f"'type' is missing; it is one of {', '.join(kinds)}")
        if not isinstance(name, str):
            raise refusal(f"type {shown(name)} is not one of {', '.join(kinds)}")
        canonical = {kind.lower(): kind for kind in kinds}.get(name.lower())
        if canonical is None:
            if elsewhere and name.lower() in elsewhere:
                raise refusal(f"type '{name}' is {elsewhere[name.lower()]}, which birdsonnx does not support")
            hint = nearest(name, kinds) or f"; it is one of {', '.join(kinds)}"
            raise refusal(f"unknown type '{name}'{hint}")
        return {**section, "type": canonical}

    return BeforeValidator(settle)
