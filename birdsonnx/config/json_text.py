"""JSON from a file: the value, without what JSON or Python's reader of it allows and nobody means."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any


class UnmeantError(ValueError):
    """JSON, but a key twice, NaN, half a character, or beyond what Python reads."""


def decoded(text: str, any_case: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        any_case: whether keys that differ in case alone are the same key.

    Raises:
        json.JSONDecodeError: not JSON.
        UnmeantError: JSON that nobody means.
    """
    try:
        value = decoder(any_case)[0].decode(text)
        require_meant(value)
    except (json.JSONDecodeError, UnmeantError):
        raise
    except RecursionError:
        raise UnmeantError("nested too deeply") from None
    except ValueError:  # Python's limit on the digits of a number
        raise UnmeantError("a number in it has too many digits") from None
    return value


def decoder(any_case: bool) -> tuple[json.JSONDecoder, list[str]]:
    """Python's reader, set up to refuse keys that are given twice, and a list that grows where it meets what
    is no number, for `require_meant` to say where."""
    met: list[str] = []

    def no_number(text: str) -> _NoNumber:
        met.append(text)
        return _NoNumber(text)

    def number(text: str) -> float | _NoNumber:
        value = float(text)
        return value if math.isfinite(value) else no_number(text)  # such as 1e999

    unique = partial(_unique, any_case=any_case)
    return json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_number, parse_float=number), met


def require_meant(value: Any) -> None:
    """Raises UnmeantError where a value that was read holds NaN, an infinity, or half a character."""
    for path, name in _no_numbers(value):
        raise UnmeantError(f"{path}{': ' * bool(path)}{name} is not a JSON number")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnmeantError("a text in it holds half a character (a lone \\ud800…\\udfff)") from None


def _unique(pairs: list[tuple[str, Any]], any_case: bool) -> dict[str, Any]:
    if not any_case and len(found := dict(pairs)) == len(pairs):
        return found  # a long list has many objects, and to count the keys takes ten times as long
    counts = Counter(key.lower() if any_case else key for key, _ in pairs)
    if len(counts) < len(pairs):
        twice = next(key for key, _ in reversed(pairs) if counts[key.lower() if any_case else key] > 1)
        raise UnmeantError(f"the key '{twice}' is given twice in one object{' (case aside)' * any_case}")
    return dict(pairs)


class _NoNumber(str):
    """NaN or an infinity, as it is spelled."""

    __slots__ = ()


def _no_numbers(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where there are any: `optimizer.betas[1]`."""
    if isinstance(value, _NoNumber):
        yield path, str(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _no_numbers(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _no_numbers(inner, f"{path}[{index}]")
