"""What travels at the end of a round so that any peer can go on: the server's state, and what shows how it came about.

A baton names the model by its tag; the model itself travels beside it. Where the server reads the model, an acting peer
could pass on any: nobody can check a sum that others took off its masks. What is checked is that so many contributed to
exactly this attempt, from the model that all had.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from securefl.peers.circle import Circle
from securefl.peers.messages import Digest, Name, Passed, Turn
from securefl.peers.turns import turn_of
from securefl.records import RoundRecord
from securefl.transcript import Crossing

_LONGEST_REASON = 500  # characters of why somebody dropped out, in words of the acting peer


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
    _check_state(circle, baton, number)
    _check_record(circle, baton, number)
    _check_start(circle, standing, baton)
    _check_inputs(circle, baton, number)
    _check_model(circle, baton.state, passed.model)
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


def _check_state(circle: Circle, baton: Baton, number: int) -> None:
    state, outcome = baton.state, baton.state.outcome
    names = set(circle.plan.clients)
    if (state.run, state.round, state.pending) != (circle.run, number, None) or outcome is None:
        raise Inconsistent(f"the baton's state is not that of round {number} of this run, committed")
    if outcome.round != number or not set(state.behind) <= names:
        raise Inconsistent("the baton's outcome is of another round, or it names strangers")
    own = turn_of(outcome.attempt)
    if own > baton.turn or (own < baton.turn and not protection.protection_of(circle.plan).sealed):
        raise Inconsistent(f"the baton of turn {baton.turn} is of an attempt of turn {own}")


def _check_record(circle: Circle, baton: Baton, number: int) -> None:
    record, outcome, names = baton.record, baton.state.outcome, set(circle.plan.clients)
    said = (record.round, record.attempt, record.contributors, record.void)
    if outcome is None or said != (number, outcome.attempt, outcome.contributors, outcome.void):
        raise Inconsistent("the baton's record is of another round than its state")
    if not set(record.dropped) | set(record.recovered) | set(record.epsilon) <= names:
        raise Inconsistent("the baton's record names strangers")
    if not all(len(why) <= _LONGEST_REASON and why.isprintable() for why in record.dropped.values()):
        raise Inconsistent("the baton's record gives reasons that nobody could print")
    if record.accuracy is not None and not 0 <= record.accuracy <= 1:  # NaN too
        raise Inconsistent("the baton's record has an accuracy that is none")
    if any(crossing.round != number or crossing.client not in names for crossing in baton.crossings):
        raise Inconsistent("the baton's transcript is of another round, or names strangers")


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


def _check_model(circle: Circle, state: State, model: bytes) -> None:
    plan = circle.plan
    if state.model:
        raise Inconsistent("the model is inside the baton: it travels beside it")
    if protection.protection_of(plan).sealed:
        if model:
            raise Inconsistent("a model came with a baton whose maker cannot have read one")
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
    outcome, start = baton.state.outcome, baton.start
    if outcome is None:
        raise Inconsistent("the baton has no outcome")
    number, attempt = outcome.round, outcome.attempt
    return terms(circle.plan, circle.roster, circle.run, number, attempt, start.tag, start.key_id).session


def standing_after(passed: Passed, baton: Baton) -> Standing:
    """Where a peer stands that has taken this baton."""
    state = replace(baton.state, model=passed.model)
    return Standing(state.round, name_of(passed.baton), state)
