"""Handing a model to those who missed it: sealed once by one who has it, kept by a server that cannot read it."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation.apply import model_tag
from protocols.aggregation.messages import Envelope, Header, Signed, envelope
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.delivery.client import open_model, seal_model
from protocols.delivery.messages import Checkpoint, InstallModelRequest, SealModelRequest, catch_up, key_setup
from protocols.errors import Forged, Inconsistent, MalformedMessage, ProtocolError
from protocols.primitives import Identity, digest
from protocols.wire import Message, decode, encode
from tests.protocols.cohort import identity, names, roster

ROSTER = roster(5)
SESSION = catch_up("run", b"plan", ROSTER, 3)
TAG_KEY, MODEL = digest("tag key"), b"".join(digest("model", bytes([place])) for place in range(20))
TAG = model_tag(TAG_KEY, "run", 3, MODEL)


def sealed(
    name: ClientId = "c0", model: bytes = MODEL, tag: bytes = TAG, key: bytes = TAG_KEY, session: bytes = SESSION
) -> Envelope:
    return seal_model(name, identity(name), session, key, tag, model, os.urandom)


def opened(given: Envelope, key: bytes = TAG_KEY, session: bytes = SESSION) -> bytes:
    return open_model(session, ROSTER, key, given)


def signed(name: ClientId, step: Step, *parts: bytes) -> Envelope:
    return envelope(identity(name), Header(SESSION, step, name, b"", b"", b""), parts)


def resigned(name: ClientId, **fields: object) -> Envelope:
    """What a dishonest roster member could sign: c0's checkpoint with other fields."""
    honest = msgspec.msgpack.decode(sealed().parts[0], type=Checkpoint)
    return signed(name, Step.SEAL_MODEL, msgspec.msgpack.encode(msgspec.structs.replace(honest, **fields)))


@pytest.mark.parametrize("giver", names(5))
def test_who_has_the_tag_key_opens_what_any_roster_member_sealed(giver: ClientId) -> None:
    assert opened(sealed(giver)) == MODEL
    assert opened(decode(encode(sealed(giver)), Envelope)) == MODEL


def test_the_server_sees_neither_the_model_nor_a_key() -> None:
    seen = encode(sealed())
    for secret in (MODEL, TAG_KEY):
        assert not any(secret[place : place + 8] in seen for place in range(len(secret) - 7))


def test_two_checkpoints_of_one_model_have_different_keys() -> None:
    """The nonce is fixed: under one key, two models would differ where their ciphertexts do."""
    checkpoints = [msgspec.msgpack.decode(sealed().parts[0], type=Checkpoint) for _ in range(3)]
    assert len({each.salt for each in checkpoints}) == len({each.sealed[:16] for each in checkpoints}) == 3
    assert all(len(each.salt) == 32 for each in checkpoints)


def test_a_checkpoint_that_no_roster_member_signed_is_refused() -> None:
    """Not even by one who has the key: every model is somebody's word."""
    for name in ("c0", "server"):
        with pytest.raises((Forged, Inconsistent)):
            opened(seal_model(name, Identity(bytes(32)), SESSION, TAG_KEY, TAG, MODEL, os.urandom))
    honest = sealed()
    with pytest.raises(Forged, match="signed"):
        opened(Envelope(honest.signed, sealed().parts))
    with pytest.raises(Inconsistent):
        opened(seal_model("c9", identity("c9"), SESSION, TAG_KEY, TAG, MODEL, os.urandom))


@pytest.mark.parametrize(
    "fields", [{"tag": b"x"}, {"salt": bytes(32)}, {"salt": b""}, {"sealed": b""}, {"sealed": bytes(99)}]
)
def test_a_signed_checkpoint_that_does_not_open_is_forged(fields: dict[str, bytes]) -> None:
    assert opened(resigned("c0")) == MODEL
    with pytest.raises(Forged, match="open"):
        opened(resigned("c0", **fields))


def test_a_checkpoint_of_one_giver_is_not_anothers() -> None:
    with pytest.raises(Forged, match="open"):
        opened(resigned("c3"))


def test_a_checkpoint_under_another_key_does_not_open() -> None:
    with pytest.raises(Forged, match="open"):
        opened(sealed(), key=digest("another key"))


@pytest.mark.parametrize(
    "other",
    [
        catch_up("another run", b"plan", ROSTER, 3),
        catch_up("run", b"another plan", ROSTER, 3),
        catch_up("run", b"plan", roster(4), 3),
        catch_up("run", b"plan", ROSTER, 4),
        key_setup("run", b"plan", ROSTER, 3),
    ],
)
def test_a_checkpoint_of_another_session_is_refused(other: bytes) -> None:
    with pytest.raises(Inconsistent, match="another session"):
        opened(sealed(session=other))
    with pytest.raises(Forged, match="open"):  # also where a dishonest member signs it into this one
        opened(signed("c0", Step.SEAL_MODEL, *sealed(session=other).parts))


def test_a_signed_word_that_is_no_checkpoint_is_refused() -> None:
    part = sealed().parts[0]
    for parts in ((), (part, part), (b"",), (b"\xc0",), (msgspec.msgpack.encode([TAG, bytes(32)]),)):
        with pytest.raises(MalformedMessage):
            opened(signed("c0", Step.SEAL_MODEL, *parts))
    with pytest.raises(Inconsistent, match="exchange"):
        opened(signed("c0", Step.INSTALL_MODEL, part))


@settings(max_examples=300)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_byte_that_is_changed_is_a_protocol_error_and_nothing_else(place: float, change: int) -> None:
    data = bytearray(encode(sealed()))
    data[int(place * len(data))] ^= change
    with pytest.raises(ProtocolError):
        opened(decode(bytes(data), Envelope))


@given(st.sampled_from(["header", "signature", "part", "tag", "salt", "sealed"]), st.binary(max_size=80))
def test_garbage_in_any_field_is_a_protocol_error_and_nothing_else(which: str, garbage: bytes) -> None:
    honest = sealed()
    given = {
        "header": Envelope(Signed(garbage, honest.signed.signature), honest.parts),
        "signature": Envelope(Signed(honest.signed.header, garbage), honest.parts),
        "part": signed("c0", Step.SEAL_MODEL, garbage),
    }
    with pytest.raises(ProtocolError):
        opened(given[which] if which in given else resigned("c0", **{which: garbage}))


@pytest.mark.parametrize(
    "message", [SealModelRequest("run", 3, b"key id"), InstallModelRequest("run", 3, sealed(), (sealed("c1"),))]
)
def test_messages_of_a_catch_up_come_back_as_they_were(message: Message) -> None:
    assert decode(encode(message), type(message)) == message
