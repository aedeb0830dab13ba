"""What travels at the end of a round so that any peer can go on: the server's state, and what shows how it came about.

A baton names the model by its tag; the model itself travels beside it. Where the server reads the model, an acting peer
could pass on any: nobody can check a sum that others took off its masks. What is checked is that so many contributed to
exactly this attempt, from the model that all had.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from protocols.aggregation.messages import Advertised, Envelope, Signed
from protocols.aggregation.session import Step
from protocols.aggregation.verify import read
from protocols.errors import Inconsistent, MalformedMessage, ProtocolError
from protocols.primitives import digest
from securefl import global_state, protection
from securefl.announcement import shown, terms
from securefl.checkpoint import State
from securefl.errors import BadInput
from securefl.evidence import check_signed
from securefl.outcome import Outcome
from securefl.peers.circle import Circle
from securefl.peers.messages import Digest, Name, Passed, Turn
from securefl.peers.turns import turn_of
from securefl.records import RoundRecord
from securefl.transcript import KINDS, Crossing

_LONGEST_REASON: Final = 500  # characters of why somebody dropped out, in words of the acting peer
# Two attempts of some thirty exchanges, if all are repeated: five, the sum, and keys and models for who lacks them.
_MOST_CROSSINGS: Final = 200  # a client


_KINDS: Final = frozenset((*KINDS.values(), "reply", "malformed", "unasked"))
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Start(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the session of a round bound: the tag of the model that it began with, and the CKKS key's id."""

    tag: Digest
    key_id: Digest


class Baton(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One round, as the peer saw it who acted in it.

    ``state``: the server's, without the model. ``before``: digest of the baton of the round before. ``inputs``: the
    contributors' signed headers of exchange 2; ``shown``: signed keys of exchange 0, with the heads of ledgers.
    ``crossings``: what crossed the wire at this peer in this turn.
    """

    maker: Name
    turn: Turn
    before: Digest
    start: Start
    state: State
    inputs: tuple[Signed, ...]
    shown: tuple[Envelope, ...]
    record: RoundRecord
    crossings: tuple[Crossing, ...]

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)


class Standing(Struct, frozen=True, array_like=True):
    """How far a run is settled for one peer: the last round, its baton's digest and the server's state after it."""

    round: int
    digest: bytes
    state: State


def name_of(baton: bytes) -> bytes:
    """By which an encoded baton is named in words and in the next one."""
    return digest("baton", baton)


def decoded(data: bytes) -> Baton:
    """Raises ``MalformedMessage`` for what is no baton."""
    try:
        return msgspec.msgpack.decode(data, type=Baton, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInput) as error:
        raise MalformedMessage(f"not a baton: {error}") from error


def checked(circle: Circle, standing: Standing, passed: Passed) -> Baton:
    """The baton of the round after ``standing``, if whoever may act made it from what so many contributed.

    Raises ``ProtocolError`` for any other: forged, of another run, plan or round, by somebody whose turn it was not,
    built on another model, or without the contributors' signatures. Who the maker is, is known from there on.
    """
    baton, number = decoded(passed.baton), standing.round + 1
    maker = circle.acting(number, baton.turn)
    if baton.maker != maker:
        raise Inconsistent(f"{baton.maker} made a baton of round {number}, turn {baton.turn}, which is {maker}'s")
    circle.check(maker, passed.signature, "baton", number, baton.turn, name_of(passed.baton))
    if baton.before != standing.digest:
        raise Inconsistent(f"the baton of {maker} does not follow the one of round {standing.round} that is settled")
    _check_state(circle, standing, baton)
    _check_record(circle, baton)
    _check_crossings(circle, baton, number)
    _check_start(circle, standing, baton)
    _check_inputs(circle, baton, number)
    _check_model(circle, baton, passed.model)
    return baton


def heads(circle: Circle, baton: Baton) -> Mapping[str, bytes]:
    """The ledger heads that clients showed in the session of the baton, each signed by its client."""
    session, found = _session(circle, baton), {}
    for head in baton.shown:
        try:
            sender = head.signed.open(circle.roster, session, Step.KEYS).sender
            head.open(circle.roster, session, Step.KEYS, sender)
            found[sender] = read(head.parts, Advertised).witness
        except ProtocolError:
            continue  # that it is missing costs a look at one head, no more
    return found


def outcome_of(record: RoundRecord) -> Outcome:
    """What the state says of the round that the record is of: no more than that, so that nothing is checked twice."""
    said = (record.round, record.attempt, record.contributors, record.recovered)
    return Outcome(*said, {}, record.accuracy, {}, 0.0, record.void)


def _check_state(circle: Circle, standing: Standing, baton: Baton) -> None:
    """All that the state says, but for the model and the words about it: whoever acts next goes on from it."""
    state, before, number = baton.state, standing.state, standing.round + 1
    names = circle.plan.clients
    if (state.run, state.round, state.pending, state.attempt) != (circle.run, number, None, 0):
        raise Inconsistent(f"the baton's state is not that of round {number} of this run, committed")
    if baton.record.round != number or state.outcome != outcome_of(baton.record):
        raise Inconsistent("the baton's record is of another round than its state")
    if state.behind != tuple(name for name in names if name in state.behind):
        raise Inconsistent("the baton names strangers among those who are behind, or somebody twice")
    # A key is made before a round, where the one before is used up, lost or none.
    key_round = before.key_round if state.key_id == before.key_id else standing.round
    if (state.key_id, state.key_round) != (baton.start.key_id, key_round):
        raise Inconsistent("the baton's key is not the one that its round began with, or was made at another time")
    counts = {name: before.counts.get(name, 0) + (name in baton.record.contributors) for name in names}
    if state.counts != {name: count for name, count in counts.items() if count}:
        raise Inconsistent("the baton counts other rounds of the clients than those that they took part in")
    own = turn_of(baton.record.attempt)
    if own > baton.turn or (own < baton.turn and not protection.protection_of(circle.plan).sealed):
        raise Inconsistent(f"the baton of turn {baton.turn} is of an attempt of turn {own}")


def _check_record(circle: Circle, baton: Baton) -> None:
    """That all peers can write it down, read it again, and show it to a person."""
    record, names = baton.record, set(circle.plan.clients)
    measured = [] if record.held_out is None else [record.held_out.accuracy, record.held_out.loss]
    numbers = [record.seconds, *measured, *record.epsilon.values()]
    counted = [*record.upload_bytes.values(), *record.download_bytes.values()]
    if not all(math.isfinite(number) and number >= 0 for number in numbers) or any(count < 0 for count in counted):
        raise Inconsistent("the baton's record has numbers that are none")
    if record.accuracy is not None and not 0 <= record.accuracy <= 1:  # NaN too
        raise Inconsistent("the baton's record has an accuracy that is none")
    told = (record.dropped, record.recovered, record.epsilon, record.upload_bytes, record.download_bytes)
    if not set().union(*told) <= names or len(record.recovered) > len(names):
        raise Inconsistent("the baton's record names strangers")
    if not all(len(why) <= _LONGEST_REASON and why.isprintable() for why in record.dropped.values()):
        raise Inconsistent("the baton's record gives reasons that nobody could print")
    _check_written(record)


def _check_crossings(circle: Circle, baton: Baton, number: int) -> None:
    names, crossings = set(circle.plan.clients), baton.crossings
    if len(crossings) > _MOST_CROSSINGS * len(names) or len(baton.shown) > len(names):
        raise Inconsistent("the baton's transcript is longer than a round can have it")
    for crossing in crossings:
        if crossing.round != number or crossing.client not in names:
            raise Inconsistent("the baton's transcript is of another round, or names strangers")
        if crossing.kind not in _KINDS or crossing.direction not in ("up", "down") or crossing.bytes < 0:
            raise Inconsistent("the baton's transcript has messages of no kind, direction or size")
        if not _HASH.fullmatch(crossing.sha256):
            raise Inconsistent("the baton's transcript has hashes that are none")
        _check_written(crossing)


def _check_written(value: RoundRecord | Crossing) -> None:
    """It goes into files of one line each: what cannot be read there again would stop a peer that starts again."""
    try:
        if msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value:
            return
    except (msgspec.MsgspecError, UnicodeError, OverflowError):
        pass
    raise Inconsistent("the baton has what cannot be written down and read again")


def _check_start(circle: Circle, standing: Standing, baton: Baton) -> None:
    """Where only clients can read the model, a new key may have come before the round: then its contributors' signed
    sessions say so.
    """
    before = Start(standing.state.tag, standing.state.key_id)
    if not protection.protection_of(circle.plan).sealed and baton.start != before:
        raise Inconsistent("the baton's round began with another model than the one that is settled")


def _check_inputs(circle: Circle, baton: Baton, number: int) -> None:
    session = _session(circle, baton)
    senders = tuple(signed.open(circle.roster, session, Step.INPUT).sender for signed in baton.inputs)
    if senders != tuple(sorted(set(senders))) or senders != baton.record.contributors:
        raise Inconsistent(f"the contributors of round {number} are not those who signed their inputs")
    if len(senders) < circle.plan.minimum:
        raise Inconsistent(f"{len(senders)} contributed to round {number}, {circle.plan.minimum} are needed")


def _check_model(circle: Circle, baton: Baton, model: bytes) -> None:
    plan, state = circle.plan, baton.state
    if state.model:
        raise Inconsistent("the model is inside the baton: it travels beside it")
    if protection.protection_of(plan).sealed:
        if model:
            raise Inconsistent("a model came with a baton whose maker cannot have read one")
        session = _session(circle, baton)
        for word in state.evidence:  # of this round: the words for the model before are good in its own only
            word.signed.open(circle.roster, session, Step.APPLY)
        check_signed(circle.roster, state.tag, state.evidence, protection.binding(plan))
        return
    check_beside(circle, state, model)
    if state.key_id or state.evidence:
        raise Inconsistent("the baton has a key or words about one, which this protection has not")
    try:
        global_state.check_whole(plan, np.frombuffer(model, "<f4"))
    except (BadInput, ValueError) as error:
        raise Inconsistent(f"the model beside the baton is none of this plan: {error}") from error


def check_beside(circle: Circle, state: State, model: bytes) -> None:
    """Raises ``Inconsistent`` unless this is the model that the state names."""
    if shown(circle.plan, model).tag != state.tag:
        raise Inconsistent("the model beside the baton is not the one that it names")


def _session(circle: Circle, baton: Baton) -> bytes:
    record, start = baton.record, baton.start
    number, attempt = record.round, record.attempt
    return terms(circle.plan, circle.roster, circle.run, number, attempt, start.tag, start.key_id).session


def standing_after(passed: Passed, baton: Baton) -> Standing:
    """Where a peer stands that has taken this baton."""
    state = replace(baton.state, model=passed.model)
    return Standing(state.round, name_of(passed.baton), state)
