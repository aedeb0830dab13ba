"""Letters: strict, and nothing but letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import MalformedMessage
from securefl.engines import letters
from securefl.engines.letters import Absent, Answer, Ask, Conflict, Hello, Here, Poll, Unknown, Working

IDS = st.binary(min_size=16, max_size=16)


@given(IDS, st.binary(max_size=100))
def test_what_is_encoded_is_decoded(id: bytes, body: bytes) -> None:
    for sent in (Hello(), Ask(id, body), Poll(id)):
        assert letters.letter(letters.encoded(sent)) == sent
    for said in (Here(id), Answer(id, body), Working(id), Unknown(id), Conflict(id), Absent()):
        assert letters.reply(letters.encoded(said)) == said


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    for read in (letters.letter, letters.reply):
        try:
            found = read(data)
        except MalformedMessage:
            continue
        assert letters.encoded(found) == data or isinstance(found, (Hello, Absent))


def test_a_reply_is_no_letter_and_an_id_has_16_bytes() -> None:
    with pytest.raises(MalformedMessage):
        letters.letter(letters.encoded(Absent()))
    with pytest.raises(MalformedMessage):
        letters.letter(letters.encoded(Poll(bytes(15))))
