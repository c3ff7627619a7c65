"""Words of refusals: what a value is, what it may have meant. Without pydantic, for all rooms."""

import difflib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import PydanticCustomError


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or an empty string."""
    matches = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    by_lower = {name.lower(): name for name in known}
    return f"; did you mean '{by_lower[matches[0]]}'?" if matches else ""


def refusal(message: str, key: str = "") -> "PydanticCustomError":
    """A refusal in our own words; `key` completes the path of a key that is no field."""
    from pydantic_core import PydanticCustomError  # not at the top: other rooms want these words alone

    # The message is a parameter because braces in it would be read as a format string.
    return PydanticCustomError("refused", "{message}", {"message": message, "key": key})


def unknown_key(key: str, content: Any, known: list[str]) -> "PydanticCustomError":
    """A key that its section does not have, which has those that are `known`."""
    from pydantic_core import PydanticCustomError  # as above

    message = f"unknown key (with value {shown(content)})"
    return PydanticCustomError("unknown_key", "{message}", {"message": message, "key": key, "known": known})


def shown(value: Any) -> str:
    """The value as JSON, shortened for a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def any_case(*names: str, prefix: str = "") -> dict[str, Any]:
    """JSON Schema of `names` in any case, with `prefix` or without; editors offer them as they are."""

    def matching(word: str) -> str:
        return "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else c for c in word)

    pattern = f"^({matching(prefix)})?" if prefix else "^"
    return {
        "anyOf": [
            {"enum": list(names)},
            {"type": "string", "pattern": f"{pattern}({'|'.join(map(matching, names))})$"},
        ]
    }
