"""What a client refuses from a dishonest server or peer, and what it never says: all but key lists and shares."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    ConsistencyRequest,
    Envelope,
    Header,
    KeysRequest,
    Opened,
    Signed,
    UnmaskRequest,
    envelope,
)
from protocols.aggregation.secrets import commitment
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.states import Advertising, Consenting, Contribution, Masked, Sharing
from protocols.base import ClientId
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, Forged, Inconsistent, MalformedMessage, SessionSpent
from protocols.graph import CohortRules
from protocols.primitives import Identity
from protocols.wire import decode, encode
from tests.protocols.cohort import (
    CELLS,
    Wire,
    clean_run,
    encoding,
    identity,
    make,
    names,
    roster,
    shares_request,
    steps_of,
)


@pytest.fixture
def wire() -> Wire:
    """A whole secagg round of five (t = 4), with every client as it was before each exchange."""
    return clean_run(make("secagg"))


# ---- exchange 1: another plan, another model


def other_terms(terms: Terms, case: str) -> Terms:
    context = terms.context
    return {
        "run": replace(terms, context=msgspec.structs.replace(context, run="another")),
        "round": replace(terms, context=msgspec.structs.replace(context, round=2)),
        "attempt": replace(terms, context=msgspec.structs.replace(context, attempt=2)),
        "plan": replace(terms, context=msgspec.structs.replace(context, configuration=b"another")),
        "model": replace(terms, context=msgspec.structs.replace(context, model=b"another")),
        "key": replace(terms, context=msgspec.structs.replace(context, key_id=b"another")),
        "rules": replace(terms, rules=CohortRules(4)),
        "layout": replace(terms, layout=FixedPoint(6, 3.0, 5).layout),
        "masks": replace(terms, masked=False),
    }[case]


DIFFERENCES = ["run", "round", "attempt", "plan", "model", "key", "rules", "layout", "masks"]


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_client_with_other_terms_is_refused_by_its_peers_whatever_the_server_does(wire: Wire, case: str) -> None:
    """A server that gives clients different models, bounds or rules gets no answer in exchange 1, so no input."""
    terms = other_terms(make("secagg").terms, case)
    stranger = AggregationClient("c4", identity("c4"), terms, coder_of(terms), Contribution(lambda: [0.0] * 6))  # type: ignore[arg-type,return-value]
    theirs = decode(stranger.handle(encode(KeysRequest(b""))), Envelope)
    with pytest.raises(Inconsistent, match="another session"):
        wire.client(Step.SHARES).handle(encode(shares_request([*wire.key_list()[:4], theirs], "c1")))


def coder_of(terms: Terms) -> FixedPoint:
    return FixedPoint(6, 3.0, 5) if terms.layout == FixedPoint(6, 3.0, 5).layout else encoding("secagg", 6, 5)  # type: ignore[return-value]


@pytest.mark.parametrize("cell", CELLS)
def test_an_honest_server_drops_a_client_with_another_model(cell: str) -> None:
    cohort = make(cell, models={"c2": b"another model"})
    aggregate = cohort.run(Wire(cohort.clients))
    assert set(aggregate.faults) == {"c2"} and "another session" in aggregate.faults["c2"]
    assert dict(aggregate.dropped) == {"c2": "exchange 0"}
    assert cohort.is_right(aggregate)


def test_every_difference_in_terms_is_another_session() -> None:
    terms = make("secagg").terms
    sessions = {terms.session, *(other_terms(terms, case).session for case in DIFFERENCES)}
    assert len(sessions) == 1 + len(DIFFERENCES)
    assert all(len(session) == 32 for session in sessions)


def test_terms_that_contradict_themselves_are_refused() -> None:
    terms = make("secagg").terms
    with pytest.raises(ConfigurationError, match="roster"):
        replace(terms, roster=roster(4))
    with pytest.raises(ConfigurationError, match="overflow"):
        AggregationServer(replace(terms, layout=FixedPoint(6, 4.0, 4).layout), dict.fromkeys(terms.roster.keys, b""))
    with pytest.raises(ConfigurationError, match="public key"):
        Roster({"a": bytes(32), "b": bytes(32)})
    with pytest.raises(ConfigurationError, match="roster"):
        AggregationClient("c1", identity("c2"), terms, encoding("secagg", 6, 5), Contribution(lambda: [0.0]))  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigurationError, match="encoding"):
        AggregationClient("c1", identity("c1"), terms, encoding("secagg", 7, 5), Contribution(lambda: [0.0]))  # type: ignore[arg-type,return-value]


def test_shamir_points_are_places_in_the_whole_roster() -> None:
    """So that they do not depend on who came, and two cohorts of one session could not mix their shares up."""
    members = Roster({"b": b"2", "a": b"1", "c": b"3"})
    assert members.points == {"a": 1, "b": 2, "c": 3}
    assert Roster({"a": b"1", "b": b"2", "c": b"3"}).digest == members.digest
    assert Roster({"a": b"2", "b": b"1", "c": b"3"}).digest != members.digest


# ---- exchanges 3 and 4: one survivor set, and one share of each peer


def without(name: ClientId) -> Wire:
    """A round in which this client dealt no shares."""
    cohort = make("secagg")
    wire = Wire(cohort.clients, {name: int(Step.SHARES)})
    cohort.run(wire)
    return wire


@pytest.mark.parametrize("survivors", [("c0", "c1", "c2"), ("c0", "c2", "c3", "c4"), ()])
def test_a_survivor_set_below_t_or_without_the_client_itself_is_not_signed(
    wire: Wire, survivors: tuple[str, ...]
) -> None:
    with pytest.raises(Inconsistent):
        wire.client(Step.CONSISTENCY).handle(encode(ConsistencyRequest(mark(names(5), survivors))))


@pytest.mark.parametrize("survivors", [names(5), ("c0", "c1", "c2", "c4")])
def test_a_survivor_who_dealt_nothing_is_not_signed_for(survivors: tuple[str, ...]) -> None:
    wire = without("c4")
    wire.client(Step.CONSISTENCY).handle(encode(ConsistencyRequest(mark(names(5), names(4)))))
    with pytest.raises(Inconsistent, match="dealt no shares"):
        wire.client(Step.CONSISTENCY).handle(encode(ConsistencyRequest(mark(names(5), survivors))))


@pytest.mark.parametrize("survivors", [b"", b"\x1f\x00", b"\x00\x1f", b"\x3f", b"\x9f", b"\xff"])
def test_marks_of_survivors_that_fit_no_key_list_are_not_signed(wire: Wire, survivors: bytes) -> None:
    """Too few bytes, too many, or bits beyond the five members."""
    with pytest.raises(MalformedMessage, match="mark"):
        wire.client(Step.CONSISTENCY).handle(encode(ConsistencyRequest(survivors)))


def consent(wire: Wire, name: ClientId, survivors: Sequence[ClientId]) -> tuple[AggregationClient, Signed]:
    consenting = wire.client(Step.CONSISTENCY, name)
    signed = decode(consenting.handle(encode(ConsistencyRequest(mark(names(5), survivors)))), Envelope).signed
    return consenting, signed


def test_only_enough_signatures_over_the_very_same_survivors_open_shares(wire: Wire) -> None:
    everyone, four = names(5), ("c0", "c1", "c2", "c3")
    victim, own = consent(wire, "c1", everyone)
    same = [consent(wire, name, everyone)[1] for name in ("c0", "c2", "c3")]
    other = consent(wire, "c0", four)[1]
    inputs = [wire.reply(Step.INPUT, name).signed for name in everyone]
    refused: list[list[Signed]] = [
        [],
        [own, *same[:2]],  # t - 1
        [own, *same[:2], same[1]],  # one of them twice
        [own, *same[1:], other],  # enough, but one over another set
        [*same, own, same[0]],
        inputs,  # enough, but of another exchange
        [own, *same[:2], Signed(same[2].header, bytes(64))],
    ]
    for consents in refused:
        with pytest.raises((Inconsistent, Forged)):
            copy.copy(victim).handle(encode(UnmaskRequest(tuple(consents))))
    assert victim.handle(encode(UnmaskRequest((own, *same))))


@pytest.mark.parametrize("told_everyone", range(6))
def test_a_server_that_shows_two_survivor_sets_never_opens_both(wire: Wire, told_everyone: int) -> None:
    """t = 4 of 5: two sets cannot both get four signatures, however the server divides the clients between them."""
    everyone, four = names(5), names(4)
    shown = {name: everyone if place < told_everyone else four for place, name in enumerate(everyone)}
    signed = {name: consent(wire, name, shown[name]) for name in everyone if name in shown[name]}
    opened = {everyone: 0, four: 0}
    for survivors in opened:
        signatures = tuple(signature for name, (_, signature) in signed.items() if shown[name] == survivors)
        for consenting, _ in signed.values():
            with suppress(Inconsistent):
                copy.copy(consenting).handle(encode(UnmaskRequest(signatures)))
                opened[survivors] += 1
    # Four signatures come together only if all of c0 to c3 were told the same; the other set then has one at most.
    assert sorted(opened.values()) == [0, {0: 4, 4: 4, 5: 5}.get(told_everyone, 0)]


@pytest.mark.parametrize("dropped", [(), ("c4",)])
def test_exactly_one_of_two_shares_of_each_peer_leaves_and_nothing_afterwards(dropped: tuple[str, ...]) -> None:
    cohort = make("secagg")
    wire = Wire(cohort.clients, dict.fromkeys(dropped, int(Step.INPUT)))
    cohort.run(wire)
    state = wire.before[Step.UNMASK, "c1"]._state
    assert isinstance(state, Consenting)
    opened = msgspec.msgpack.decode(wire.reply(Step.UNMASK, "c1").parts[0], type=Opened).shares
    for name, share in zip(names(5), opened, strict=True):
        pair = state.held[name]
        kept = pair.seed if name in dropped else pair.key
        assert share == (pair.key if name in dropped else pair.seed)
        assert all(kept not in answer for (_, sender), answer in wire.replies.items() if sender == "c1")
    for request in (wire.requests[Step.UNMASK, "c1"], wire.requests[Step.KEYS, "c1"]):
        with pytest.raises(SessionSpent):
            wire.clients["c1"].handle(request)


def test_the_fewest_shares_that_leave_do_not_open_a_survivors_mask_key(wire: Wire) -> None:
    """All that a server ever holds of c1's mask key are its public half and sealed shares."""
    sharing = wire.before[Step.INPUT, "c1"]._state
    assert isinstance(sharing, Sharing)
    on_the_wire = b"".join([*wire.requests.values(), *wire.replies.values()])
    assert sharing.mask.public in on_the_wire
    assert sharing.mask.secret not in on_the_wire and sharing.self_seed not in on_the_wire
    masked = [wire.before[Step.CONSISTENCY, name]._state for name in names(5)]
    for state in masked:
        assert isinstance(state, Masked)
        assert state.held["c1"].key not in on_the_wire
        assert state.held["c1"].seed in on_the_wire  # the seed's are opened, c1 survived


# ---- order and end


@pytest.mark.parametrize("cell", CELLS)
def test_each_request_is_answered_in_its_state_only(cell: str) -> None:
    wire = clean_run(make(cell))
    for state in steps_of(cell):
        for request in steps_of(cell):
            candidate = wire.client(state)
            if state == request:
                candidate.handle(wire.requests[request, "c1"])
            else:
                with pytest.raises(SessionSpent):
                    candidate.handle(wire.requests[request, "c1"])
                with pytest.raises(SessionSpent):
                    candidate.handle(wire.requests[state, "c1"])


def test_masks_cannot_be_switched_off_by_a_message() -> None:
    """A masked session does not answer the request of an unmasked one, and the other way round."""
    masked, plain = clean_run(make("secagg")), clean_run(make("plain"))
    for step in (Step.SHARES, Step.INPUT):
        with pytest.raises((SessionSpent, MalformedMessage)):
            masked.client(step).handle(plain.requests[Step.INPUT, "c1"])
    with pytest.raises(SessionSpent):
        plain.client(Step.INPUT).handle(masked.requests[Step.SHARES, "c1"])
    with pytest.raises(SessionSpent):
        plain.client(Step.INPUT).handle(masked.requests[Step.INPUT, "c1"])


# ---- secrets


def test_no_state_prints_a_secret(wire: Wire) -> None:
    state = wire.before[Step.INPUT, "c1"]._state
    keys = wire.before[Step.SHARES, "c1"]._state
    final = wire.before[Step.UNMASK, "c1"]._state
    assert isinstance(state, Sharing) and isinstance(keys, Advertising) and isinstance(final, Consenting)
    secrets = [state.mask.secret, state.share.secret, state.self_seed, keys.mask.secret]
    secrets += [share for pair in final.held.values() for share in (pair.seed, pair.key)]
    shown = [wire.before[step, "c1"]._state for step in steps_of("secagg")]
    shown += [
        wire.before[Step.KEYS, "c1"],
        wire.before[Step.KEYS, "c1"]._contribution,
        state.own,
        state.own["c1"],
        final.held["c0"],
    ]
    for thing in shown:
        text = f"{thing!r} {thing!s}"
        assert not any(repr(secret)[2:-1] in text or secret.hex() in text for secret in secrets)


def test_a_commitment_binds() -> None:
    assert commitment(b"a") != commitment(b"b") and len(commitment(b"")) == 32


def test_a_session_of_strangers_is_refused() -> None:
    """An identity that is not pinned gives its envelopes no weight, whatever name it takes."""
    terms = make("secagg").terms
    header = Header(terms.session, Step.KEYS, "c1", b"", b"", b"")
    forged = envelope(Identity(bytes(32)), header, [b""])
    with pytest.raises(Forged):
        forged.open(terms.roster, terms.session, Step.KEYS, "c1")
    context = Context("run", 1, 1, b"plan", terms.roster.digest, b"model")
    assert context.session == make("secagg").terms.context.session
