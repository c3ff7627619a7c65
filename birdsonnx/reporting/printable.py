"""Text from file names, class names and models, made safe for a terminal."""

import re
from collections.abc import Sequence

UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f"  # controls: they move the cursor, set colours, begin another line
    "\\u2028\\u2029"  # end a line, or a paragraph
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u206f"  # turn the direction of what follows
    "\\xad\\u180e\\u200b\\u2060-\\u2065\\ufeff\\ufff9-\\ufffb\\U000e0000-\\U000e007f"  # are not seen at all
    "\\ud800-\\udfff]"  # bytes of a file name that are not UTF-8
)


def printable(text: str) -> str:
    """One line, with all that is not text written as its escape: `\\x1b`, `\\u202e`, `\\udcff`."""
    return UNSAFE.sub(lambda found: ascii(found.group())[1:-1], text)


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many more there are: `conv1, bn and 120 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
