"""Which section a key belongs to: for a key that was given in another one, or without any."""

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from birdsonnx.config.section import Section
from birdsonnx.config.settings import Settings
from birdsonnx.config.wording import nearest


def guess(key: str, path: str, known: list[str]) -> str:
    """`; did you mean data.batch_size?` for a key that its section does not have, or what that has.

    Args:
        key: as it was given.
        path: where it was given, below `neural_network`.
        known: the keys of that section.
    """
    listed = f"; known keys: {', '.join(known)}"
    places = _places().get(key.lower(), [])
    if path.lower() in places:  # of another kind of this section, such as LARS' eta
        return listed
    near = "" if places else nearest(key, known)
    if not places and not near:
        alike = difflib.get_close_matches(key.lower(), _places(), n=1)
        places = _places()[alike[0]] if alike else []
    if places:
        return f"; did you mean {' or '.join(places)}?"
    return near or listed


@cache
def _places() -> dict[str, list[str]]:
    """The full paths of each key, in the order of the sections."""
    found: dict[str, list[str]] = {}
    for name, path in _keys_of(Settings, ""):
        paths = found.setdefault(name, [])
        if path not in paths:
            paths.append(path)
    return found


def _keys_of(section: type[Section], above: str) -> Iterator[tuple[str, str]]:
    for name in (*section.model_fields, *section.synonyms):
        if name != "type":  # in every section that has kinds
            yield name, above + name
    for name, field in section.model_fields.items():
        for kind in _sections_in(field.annotation):
            yield from _keys_of(kind, f"{above}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The section classes that an annotation names: one, a union of kinds, or none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)
