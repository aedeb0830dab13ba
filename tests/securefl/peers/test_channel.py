"""Sealed letters between peers, and what whoever carries them can do: lose and delay, nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregation.session import Roster
from protocols.errors import Forged, Inconsistent, MalformedMessage, ProtocolError, SessionSpent
from protocols.primitives import Identity
from securefl.peers.channel import MAGIC, Channels
from securefl.peers.sealing import Sealing

NAMES = ("ada", "bob", "eve")
IDENTITIES = {name: Identity(name.encode().ljust(32)) for name in NAMES}
ROSTER = Roster({name: identity.public for name, identity in IDENTITIES.items()})
TEXT = b"the model, and what is in it"


def process(name: str) -> Channels:
    return Channels(name, IDENTITIES[name], ROSTER)


def echo(sender: str, letter: bytes) -> bytes:
    return sender.encode() + b" wrote " + letter


def opened() -> tuple[Channels, Channels]:
    """A channel from ada to bob."""
    ada, bob = process("ada"), process("bob")
    ada.opened("bob", bob.answer(ada.opening("bob"), echo))
    return ada, bob


def test_a_letter_arrives_with_its_senders_name_and_is_answered() -> None:
    ada, bob = opened()
    for text in (TEXT, b"", TEXT):
        sealed, open_reply = ada.sealed("bob", text)
        assert open_reply(bob.answer(sealed, echo)) == b"ada wrote " + text


def test_letters_may_overtake_each_other() -> None:
    ada, bob = opened()
    sent = [ada.sealed("bob", bytes([number])) for number in range(5)]
    for number in (4, 0, 2, 3, 1):
        sealed, open_reply = sent[number]
        assert open_reply(bob.answer(sealed, echo)) == b"ada wrote " + bytes([number])


@pytest.mark.attack("reading what peers write to each other")
def test_who_carries_letters_reads_none_of_them() -> None:
    ada, bob = opened()
    sealed, open_reply = ada.sealed("bob", TEXT)
    reply = bob.answer(sealed, echo)
    assert TEXT in echo("ada", TEXT)  # what travels without a channel
    assert TEXT not in sealed and TEXT not in reply and open_reply(reply) == echo("ada", TEXT)


@pytest.mark.attack("sending a letter once more")
def test_no_letter_is_answered_twice() -> None:
    ada, bob = opened()
    sealed, _ = ada.sealed("bob", TEXT)
    bob.answer(sealed, echo)
    heard: list[bytes] = []

    def hear(sender: str, letter: bytes) -> bytes:
        heard.append(letter)
        return b""

    with pytest.raises(Inconsistent, match="came a second time"):
        bob.answer(sealed, hear)
    for _ in range(2000):
        bob.answer(ada.sealed("bob", b"")[0], echo)
    with pytest.raises(Inconsistent):
        bob.answer(sealed, hear)
    assert heard == []


@pytest.mark.attack("handing a letter back to its sender, or to another")
def test_a_letter_opens_for_its_receiver_only() -> None:
    ada, bob = opened()
    eve = process("eve")
    ada.opened("eve", eve.answer(ada.opening("eve"), echo))
    bob.opened("ada", ada.answer(bob.opening("ada"), echo))
    sealed, open_reply = ada.sealed("bob", TEXT)
    for other in (ada, eve):
        with pytest.raises(SessionSpent):
            open_reply(other.answer(sealed, echo))
    ada, bob = opened()
    opening = ada.opening("bob")
    with pytest.raises(Forged):
        ada.answer(opening, echo)  # an opening that came back
    with pytest.raises(Forged):
        process("eve").answer(opening, echo)


@pytest.mark.attack("speaking in the name of another peer")
def test_a_channel_is_opened_by_pinned_identities_only() -> None:
    stranger = Channels("ada", Identity(bytes(32)), ROSTER)
    bob = process("bob")
    with pytest.raises(Forged):
        bob.answer(stranger.opening("bob"), echo)
    with pytest.raises(Inconsistent, match="not on the roster"):
        bob.answer(Channels("mallory", Identity(bytes(32)), ROSTER).opening("bob"), echo)
    ada = process("ada")
    opening = ada.opening("bob")
    with pytest.raises(Forged):
        ada.opened("bob", Channels("bob", Identity(bytes(32)), ROSTER).answer(opening, echo))
    with pytest.raises(MalformedMessage):
        ada.opened("bob", bob.answer(opening, echo))  # no longer waited for


@pytest.mark.attack("an answer to an older opening")
def test_an_answer_is_to_one_opening() -> None:
    ada, bob = process("ada"), process("bob")
    old = bob.answer(ada.opening("bob"), echo)
    ada.opening("bob")
    with pytest.raises(Forged):
        ada.opened("bob", old)


@pytest.mark.attack("repeating openings until the one in use is forgotten")
def test_openings_that_are_repeated_leave_the_channel_in_use() -> None:
    ada, bob = process("ada"), process("bob")
    opening = ada.opening("bob")
    ada.opened("bob", bob.answer(opening, echo))
    bob.answer(ada.sealed("bob", TEXT)[0], echo)
    for _ in range(20):
        bob.answer(opening, echo)
    sealed, open_reply = ada.sealed("bob", TEXT)
    assert open_reply(bob.answer(sealed, echo)) == echo("ada", TEXT)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    ada, bob = opened()
    sealed, open_reply = ada.sealed("bob", TEXT)
    changed = bytearray(sealed)
    changed[place % len(sealed)] ^= change
    heard: list[bytes] = []

    def hear(sender: str, letter: bytes) -> bytes:
        heard.append(letter)
        return b""

    with pytest.raises(ProtocolError):
        open_reply(bob.answer(bytes(changed), hear))
    assert heard == []
    reply = bytearray(bob.answer(sealed, echo))
    reply[place % len(reply)] ^= change
    with pytest.raises(ProtocolError):
        open_reply(bytes(reply))


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    for carried in (data, MAGIC + data):
        with pytest.raises(ProtocolError):
            process("bob").answer(carried, echo)


def test_a_process_that_began_anew_says_so_and_gets_another_channel() -> None:
    ada, processes = process("ada"), {"bob": process("bob")}
    sealing = Sealing(ada, lambda peer, data, seconds: processes[peer].answer(data, echo))
    assert sealing.carry("bob", TEXT, 1.0) == echo("ada", TEXT)
    processes["bob"] = process("bob")
    assert sealing.carry("bob", TEXT, 1.0) is None  # whoever writes letters sends them again
    assert sealing.carry("bob", TEXT, 1.0) == echo("ada", TEXT)


def test_what_does_not_come_back_or_is_no_reply_is_none() -> None:
    bob = process("bob")
    answers: Iterator[bytes | None] = iter([None, b"rubbish", None])
    sealing = Sealing(process("ada"), lambda peer, data, seconds: next(answers))
    assert [sealing.carry("bob", TEXT, 0.1) for _ in range(2)] == [None, None]
    ada = process("ada")
    replies: Iterator[bytes | None] = iter([b"rubbish", None])

    def carry(peer: str, data: bytes, seconds: float) -> bytes | None:
        return next(replies) if ada.is_open(peer) else bob.answer(data, echo)

    sealing = Sealing(ada, carry)
    assert [sealing.carry("bob", TEXT, 0.1) for _ in range(2)] == [None, None]
