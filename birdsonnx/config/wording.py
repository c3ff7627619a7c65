"""Words of refusals: what a value is, what it may have meant. Without pydantic, for all rooms."""

import difflib
import json
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import PydanticCustomError


MOST_COMPARED = 10_000
"""Names of a folder that a mistyped one is compared with: a folder may hold millions."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or an empty string."""
    matches = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    by_lower = {name.lower(): name for name in known}
    return f"; did you mean '{by_lower[matches[0]]}'?" if matches else ""


def nearest_path(path: Path) -> str:
    """`; did you mean 'x'?` for a path that does not exist and the closest one that does, or an empty string.

    Below the last of its folders that is there, each further name is the one most like it.
    """
    parts = list(path.parts)
    known = 0
    while known < len(parts) and Path(*parts[: known + 1]).exists():
        known += 1
    found = Path(*parts[:known])
    for part in parts[known:]:
        try:
            with os.scandir(found) as entries:
                names = {entry.name.lower(): entry.name for entry in islice(entries, MOST_COMPARED)}
        except OSError:
            return ""
        matches = difflib.get_close_matches(part.lower(), names, n=1, cutoff=0.6)
        if not matches:
            return ""
        found /= names[matches[0]]
    return f"; did you mean {str(found)!r}?"


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
