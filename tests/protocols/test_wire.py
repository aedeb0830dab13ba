from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import wire
from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    DecryptRequest,
    Envelope,
    Extract,
    InputRequest,
    KeysRequest,
    Refusal,
    SharesRequest,
    Signed,
    UnmaskRequest,
)
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
)
from protocols.errors import MalformedMessage
from protocols.wire import Message, decode, encode, kind

ALL = (
    KeysRequest, SharesRequest, InputRequest, ConsistencyRequest, UnmaskRequest, ApplyRequest, DecryptRequest, Envelope,
    Refusal,
    JoinRequest, MakeKeyRequest, ReceiveKeyRequest, ShareKeyRequest, SealModelRequest, InstallModelRequest,
)  # fmt: skip

signed = st.builds(Signed, st.binary(max_size=40), st.binary(max_size=70))
envelopes = st.builds(Envelope, signed, st.lists(st.binary(max_size=20), max_size=3).map(tuple))
numbers = st.integers(-(2**63), 2**64 - 1)
# A run has a name that is kept, and a round a number that fits eight bytes.
runs, rounds = st.text(max_size=255), st.integers(0, 2**63 - 1)
extracts = st.builds(Extract, signed, st.binary(max_size=9), numbers, numbers, st.binary(max_size=99))
several_envelopes = st.lists(envelopes, max_size=3).map(tuple)
messages = st.one_of(
    st.builds(KeysRequest, st.binary()),
    st.builds(
        SharesRequest,
        st.lists(st.text(), max_size=4).map(tuple),
        st.binary(max_size=99),
        several_envelopes,
    ),
    st.builds(InputRequest, st.binary(max_size=4), st.lists(extracts, max_size=3).map(tuple)),
    st.builds(ConsistencyRequest, st.binary(max_size=4)),
    st.builds(UnmaskRequest, st.lists(signed, max_size=3).map(tuple)),
    st.builds(DecryptRequest, runs, rounds, st.lists(signed, max_size=3).map(tuple)),
    st.builds(Refusal, st.from_regex(r"[a-z]{1,20}", fullmatch=True)),
    st.builds(JoinRequest, st.binary()),
    st.builds(MakeKeyRequest, runs, rounds, several_envelopes),
    st.builds(ShareKeyRequest, runs, rounds, st.binary(max_size=40), several_envelopes),
    st.builds(ReceiveKeyRequest, runs, rounds, extracts),
    st.builds(SealModelRequest, runs, rounds, st.binary(max_size=40)),
    st.builds(InstallModelRequest, runs, rounds, envelopes, several_envelopes),
    envelopes,
)


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decode(encode(message), type(message)) == message
    assert kind(encode(message)) == message.KIND


def test_each_kind_of_message_has_a_number_of_its_own() -> None:
    assert len({message.KIND for message in ALL}) == len(ALL)
    assert all(0 < message.KIND < 256 for message in ALL)


def test_the_bytes_of_a_message_are_fixed() -> None:
    assert encode(ConsistencyRequest(b"ab")) == b"SF\x01\x04" + b"\x91\xc4\x02ab"
    asked = SharesRequest(("a", "b"), b"cd", ())
    assert encode(asked) == b"SF\x01\x02" + b"\x93\x92\xa1a\xa1b\xc4\x02cd\x90"


@given(messages, st.data())
def test_a_message_cut_short_is_malformed(message: Message, data: st.DataObject) -> None:
    encoded = encode(message)
    with pytest.raises(MalformedMessage):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))], type(message))


@given(messages, st.binary(min_size=1))
def test_bytes_after_a_message_are_malformed(message: Message, more: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(encode(message) + more, type(message))


@given(st.sampled_from(ALL), st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_decode_or_are_malformed(expected: type[Message], body: bytes, framed: bool) -> None:
    data = b"SF\x01" + bytes([expected.KIND]) + body if framed else body
    with suppress(MalformedMessage):
        assert isinstance(decode(data, expected), expected)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SF\x01",
        b"SF\x02\x04\x91\xc4\x00",  # another version
        b"XX\x01\x04\x91\xc4\x00",
        b"SF\x01\x05\x91\xc4\x00",  # another kind
        b"SF\x01\x04\x92\xc4\x00\x01",  # a field too many
        b"SF\x01\x04\x90",  # a field too few
        b"SF\x01\x04\x91\x01",  # a number for bytes
        b"SF\x01\x04\x91\x91\xc4\x00",  # a list of them
        b"SF\x01\x04\x81\xa1a\xc4\x00",  # a map
        b"SF\x01\x04" + b"\x91" * 100_000,  # nested beyond any stack
        b"SF\x01\x04\x91\xc6\xff\xff\xff\xff",  # claims four billion bytes
    ],
)
def test_what_is_not_exactly_the_expected_message_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(data, ConsistencyRequest)
    assert decode(b"SF\x01\x04\x91\xc4\x00", ConsistencyRequest) == ConsistencyRequest(b"")


@pytest.mark.parametrize(
    "names",
    [
        b"\x91\x01",  # a number for a name
        b"\x91\xa1\xff",  # a name that is no UTF-8
        b"\xdd\xff\xff\xff\xff",  # claims four billion names
    ],
)
def test_what_is_no_list_of_names_is_refused(names: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(b"SF\x01\x02\x93" + names + b"\xc4\x00\x90", SharesRequest)
    assert decode(b"SF\x01\x02\x93\x90\xc4\x00\x90", SharesRequest) == SharesRequest((), b"", ())


def test_a_message_above_the_size_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    message = KeysRequest(bytes(90))
    monkeypatch.setattr(wire, "LARGEST", len(encode(message)))
    assert decode(encode(message), KeysRequest) == message
    monkeypatch.setattr(wire, "LARGEST", len(encode(message)) - 1)
    with pytest.raises(MalformedMessage, match="limit"):
        decode(encode(message), KeysRequest)
