"""Places in the arena."""

from hypothesis import given, settings
from hypothesis import strategies as st

from birdsonnx.onednn.execution import ALIGNMENT
from birdsonnx.onednn.recording import Space, place

drawn_anew = settings(derandomize=True, deadline=None, max_examples=100)
lives = st.tuples(st.integers(1, 500), st.integers(0, 30), st.integers(0, 10))


def spaces_of(drawn: list[tuple[int, int, int]]) -> list[Space]:
    """Bytes, first step, and steps after it."""
    return [Space(size, first, first + more) for size, first, more in drawn]


def padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@drawn_anew
@given(st.lists(lives, max_size=40))
def test_what_lives_at_the_same_time_lies_apart(drawn):
    spaces = spaces_of(drawn)
    end = place(spaces)
    for number, one in enumerate(spaces):
        assert one.offset % ALIGNMENT == 0
        assert 0 <= one.offset <= end - one.bytes
        for other in spaces[:number]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset
            assert apart or not together


@drawn_anew
@given(st.lists(lives, max_size=40))
def test_the_whole_is_between_what_lives_at_once_and_the_sum(drawn):
    spaces = spaces_of(drawn)
    end = place(spaces)
    at_once = [sum(each.bytes for each in spaces if each.first <= step <= each.last) for step in range(41)]
    assert max(at_once, default=0) <= end <= sum(padded(each.bytes) for each in spaces)


@drawn_anew
@given(st.integers(1, 1000), st.integers(1, 20))
def test_a_chain_of_one_size_takes_turns_in_two_places(size, steps):
    """Each step reads one and writes the next."""
    assert place([Space(size, step, step + 1) for step in range(steps + 1)]) == padded(size) + size


def test_the_same_spaces_have_the_same_places():
    drawn = [(64 * (number % 5 + 1), number % 7, number % 3) for number in range(30)]
    found = []
    for _ in range(2):
        spaces = spaces_of(drawn)
        place(spaces)
        found.append([each.offset for each in spaces])
    assert found[0] == found[1]


def test_no_spaces_need_no_bytes():
    assert place([]) == 0
