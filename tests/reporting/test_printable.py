"""No text of a file reaches a terminal as anything but text."""

import os

import pytest

from birdsonnx.reporting.console import Console
from birdsonnx.reporting.printable import printable


@pytest.mark.parametrize(
    "text", ["", "plain", "ünï çödé", "日本 \U0001f426", "a'b\"c\\d", "no-break\u00a0space", "ab\u200dcd"]
)
def test_text_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (os.fsdecode(b"bad \xff.png"), "bad \\udcff.png"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("two\nlines\r\x07\t", "two\\nlines\\r\\x07\\t"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\u2028b", "a\\u2028b"),
        ("1\u200e2\u200f3\u061c4\u2067", "1\\u200e2\\u200f3\\u061c4\\u2067"),
        ("A\u200b \ufeffB\u00ad \u2060", "A\\u200b \\ufeffB\\xad \\u2060"),
        ("tag\U000e0041", "tag\\U000e0041"),
    ],
)
def test_what_is_not_text_is_escaped(text, expected):
    assert printable(text) == expected
    assert expected.encode().decode() == expected


def test_the_console_prints_nothing_else(capsys):
    Console().say("a\x1b[2Jb")
    assert capsys.readouterr().out == "a\\x1b[2Jb\n"
