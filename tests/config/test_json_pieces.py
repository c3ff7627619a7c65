"""JSON read piece by piece, against Python's reader of the whole."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdsonnx.config.json_pieces import pieces
from birdsonnx.config.json_text import UnmeantError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def whole(text: str) -> dict[str, object]:
    """The root object, put together from its pieces."""
    found: dict[str, object] = {}
    for piece in pieces(text, "images"):
        if piece.index is None:
            found[piece.key] = piece.value
        else:
            listed = found["images"]
            assert isinstance(listed, list)
            assert piece.index == len(listed)
            assert json.loads(text[piece.start : piece.end]) == piece.value
            listed.append(piece.value)
    return found


@given(
    st.dictionaries(st.text() | st.just("images"), VALUES | st.lists(VALUES), max_size=4),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_the_pieces_are_the_whole(root, indent, ascii):
    text = json.dumps(root, indent=indent, ensure_ascii=ascii)
    assert whole(f"\n {text}\t") == json.loads(text)


BROKEN = [
    "",
    "[]",
    '"images"',
    "{",
    '{"images"',
    '{"images": [',
    '{"images": [1',
    '{"images": [1,',
    '{"images": [1,]}',
    '{"images": [,1]}',
    '{"images": [1 2]}',
    '{"images": [1]',
    '{"images": [1]} {',
    '{"images": [1],}',
    '{"images": [1] "info": 1}',
    "{info: 1}",
    '{"info" 1}',
    '{"info": }',
    '{"info": tru}',
    '{"info": "a}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_not_json_is_refused(text):
    with pytest.raises(json.JSONDecodeError):
        json.loads(text if text != "[]" and text != '"images"' else "")
    with pytest.raises(json.JSONDecodeError):
        whole(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"images": [{"b": 1}, {"b": 1, "b": 2}]}', r"^images\[1\]: the key 'b' is given twice"),
        ('{"images": [{"b": [1, NaN]}]}', r"^images\[0\]: b\[1\]: NaN is not a JSON number"),
        ('{"images": [0, {"b": -1e999}]}', r"^images\[1\]: b: -1e999 is not a JSON number"),
        ('{"a": Infinity}', "^a: Infinity is not"),
        ('{"images": ["\\ud800"]}', r"^images\[0\]: a text in it holds half a character"),
        ('{"\\udc00": 1}', "half a character"),
        ('{"images": [' + "[" * 100_000 + "]" * 100_000 + "]}", r"^images\[0\]: nested too deeply"),
        ('{"images": [' + "9" * 5000 + "]}", r"^images\[0\]: a number in it has too many digits"),
    ],
)
def test_json_that_nobody_means_is_refused_with_its_place(text, words):
    with pytest.raises(UnmeantError, match=words):
        whole(text)


def test_after_a_refusal_nothing_of_it_is_left():
    """The list of what was met is shared by all pieces."""
    with pytest.raises(UnmeantError):
        whole('{"images": [NaN]}')
    assert whole('{"images": [1.5]}') == {"images": [1.5]}
