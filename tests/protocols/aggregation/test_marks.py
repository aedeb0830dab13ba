"""One bit a member: every set can be written, in one way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregation.marks import mark, marked
from protocols.errors import MalformedMessage
from tests.protocols.cohort import names

counts = st.integers(1, 200)


@given(counts, st.data())
def test_a_set_comes_back_in_the_order_of_the_key_list(count: int, data: st.DataObject) -> None:
    members = tuple(sorted(names(count)))
    chosen = data.draw(st.sets(st.sampled_from(members)))
    marks = mark(members, chosen)
    assert marked(members, marks) == tuple(sorted(chosen))
    assert len(marks) == (count + 7) // 8


@given(counts, st.data())
def test_bytes_mark_one_set_or_none(count: int, data: st.DataObject) -> None:
    """Whatever is read is written back to the same bytes: there is no second way to say it."""
    members = names(count)
    marks = data.draw(st.binary(min_size=(count + 7) // 8, max_size=(count + 7) // 8))
    beyond = int.from_bytes(marks, "little") >> count
    if beyond:
        with pytest.raises(MalformedMessage, match="mark"):
            marked(members, marks)
    else:
        assert mark(members, marked(members, marks)) == marks


@given(counts, st.binary(max_size=40))
def test_bytes_of_another_length_are_refused(count: int, marks: bytes) -> None:
    members = names(count)
    if len(marks) != (count + 7) // 8:
        with pytest.raises(MalformedMessage, match="mark"):
            marked(members, marks)


@pytest.mark.parametrize("place", [5, 6, 7])
def test_a_bit_beyond_the_last_member_is_refused(place: int) -> None:
    with pytest.raises(MalformedMessage):
        marked(names(5), bytes([1 | 1 << place]))
    assert marked(names(8), bytes([1 | 1 << place])) == ("c0", f"c{place}")


def test_the_lowest_bit_is_the_first_member() -> None:
    assert mark(names(9), ["c0"]) == b"\x01\x00"
    assert mark(names(9), ["c8"]) == b"\x00\x01"
    assert mark(names(9), ["c1", "c7"]) == b"\x82\x00"


def test_who_is_no_member_leaves_no_mark() -> None:
    """So a stranger cannot be written, and nobody can be written twice or out of order."""
    assert mark(names(3), ["c2", "c9", "c0", "c2"]) == mark(names(3), ["c0", "c2"])
