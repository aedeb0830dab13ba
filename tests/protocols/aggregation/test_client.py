"""What a client refuses from a dishonest server or peer, and what it never says."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Advertised,
    Complaint,
    ConsistencyRequest,
    Dealt,
    Envelope,
    Extract,
    Header,
    InputRequest,
    KeysRequest,
    Opened,
    SharePair,
    SharesRequest,
    Signed,
    UnmaskRequest,
    envelope,
    extract,
)
from protocols.aggregation.secrets import commitment
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Context, Roster, Step, Terms
from protocols.aggregation.states import Advertising, Cohort, Consenting, Contribution, Masked, Sharing
from protocols.base import ClientId
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, Forged, Inconsistent, MalformedMessage, RoundAborted, SessionSpent
from protocols.graph import CohortRules
from protocols.merkle import tree_of
from protocols.primitives import AgreementKey, Identity
from protocols.wire import decode, encode
from tests.protocols.cohort import (
    CELLS,
    MASKED,
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

LOW_ORDER = bytes(32)


@pytest.fixture
def wire() -> Wire:
    """A whole secagg round of five (t = 4), with every client as it was before each exchange."""
    return clean_run(make("secagg"))


def client(wire: Wire, step: Step, name: ClientId = "c1") -> AggregationClient:
    return copy.copy(wire.before[step, name])


def reply(wire: Wire, step: Step, name: ClientId) -> Envelope:
    return decode(wire.replies[step, name], Envelope)


# ---- exchange 1: the key list


def key_list(wire: Wire) -> list[Envelope]:
    """The keys of all five, in order."""
    return [reply(wire, Step.KEYS, name) for name in names(5)]


def advertise(name: ClientId, mask_key: bytes, share_key: bytes, signer: ClientId | None = None) -> Envelope:
    header = Header(make("secagg").terms.session, Step.KEYS, name, b"", b"", b"")
    return envelope(identity(signer or name), header, [msgspec.msgpack.encode(Advertised(mask_key, share_key, b""))])


def fresh() -> bytes:
    return AgreementKey.generate(os.urandom).public


def tampered_lists(listed: list[Envelope]) -> dict[str, tuple[SharesRequest, type[Exception], str]]:
    """What a server could show c1, the error and a word of its reason."""
    theirs = msgspec.msgpack.decode(listed[0].parts[0], type=Advertised)
    own = msgspec.msgpack.decode(listed[1].parts[0], type=Advertised)
    honest = shares_request(listed, "c1")

    def swapped(place: int, other: Envelope, rest: list[Envelope] = listed) -> SharesRequest:
        return shares_request([*rest[:place], other, *rest[place + 1 :]], "c1")

    def shown(*advertised: Envelope) -> SharesRequest:
        return msgspec.structs.replace(honest, advertised=advertised)

    def entered(entries: bytes) -> SharesRequest:
        return msgspec.structs.replace(honest, entries=entries)

    near = honest.advertised
    two = advertise("c0", fresh(), fresh())
    stranger = advertise("c9", fresh(), fresh())
    return {
        "own keys missing": (shares_request([listed[0], *listed[2:]], "c1"), Inconsistent, "lacks this client"),
        "own keys swapped": (swapped(1, advertise("c1", fresh(), fresh())), Inconsistent, "other keys of c1"),
        "own keys re-signed": (
            swapped(1, advertise("c1", own.mask_key, own.share_key)),
            Inconsistent,
            "other keys of c1",
        ),
        "own keys signed by another": (
            swapped(1, advertise("c1", fresh(), fresh(), "c3")),
            Inconsistent,
            "other keys of c1",
        ),
        "own keys among the neighbours'": (shown(near[0], listed[1], *near[1:]), Inconsistent, "neighbours"),
        "other keys of its own among the neighbours'": (
            shown(advertise("c1", fresh(), fresh()), *near),
            Inconsistent,
            "neighbours",
        ),
        "one client twice": (shares_request([listed[0], *listed], "c1"), Inconsistent, "twice"),
        "one client with two lists of keys": (
            shares_request([listed[0], two, *listed[1:]], "c1"),
            Inconsistent,
            "twice",
        ),
        "one client's keys shown twice": (shown(near[0], *near), Inconsistent, "neighbours"),
        "two lists of one client's keys shown": (shown(two, *near), Inconsistent, "neighbours"),
        "unsorted": (shares_request(listed[::-1], "c1"), Inconsistent, "unsorted"),
        "keys shown out of order": (shown(*near[::-1]), Inconsistent, "in order"),
        "below the minimum": (shares_request(listed[:2], "c1"), Inconsistent, "below the minimum"),
        "empty": (SharesRequest((), b"", ()), Inconsistent, "lacks this client"),
        "nobody's keys shown": (shown(), Inconsistent, "neighbours"),
        "a neighbour's keys not shown": (shown(*near[:3]), Inconsistent, "neighbours"),
        "keys shown of who is no member": (
            msgspec.structs.replace(shares_request(listed[:4], "c1"), advertised=near),
            Inconsistent,
            "neighbours",
        ),
        "no entries": (entered(b""), Inconsistent, "one entry for each"),
        "an entry less": (entered(honest.entries[:-32]), Inconsistent, "one entry for each"),
        "an entry more": (entered(honest.entries + bytes(32)), Inconsistent, "one entry for each"),
        "an entry cut short": (entered(honest.entries[:-1]), Inconsistent, "one entry for each"),
        "two entries swapped": (
            entered(honest.entries[:64] + honest.entries[96:128] + honest.entries[64:96] + honest.entries[128:]),
            Inconsistent,
            "other keys of c2",
        ),
        "a false entry of a neighbour": (entered(honest.entries[:-32] + bytes(32)), Inconsistent, "other keys of c4"),
        "other keys than a neighbour's entry": (
            shown(*near[:3], advertise("c4", fresh(), fresh())),
            Inconsistent,
            "other keys of c4",
        ),
        "a key of another client": (swapped(4, advertise("c4", theirs.mask_key, fresh())), Inconsistent, "key twice"),
        "this client's own key": (swapped(4, advertise("c4", fresh(), own.share_key)), Inconsistent, "key twice"),
        "one key for both": (swapped(4, advertise("c4", *[fresh()] * 2)), Inconsistent, "key twice"),
        "a share key of low order": (swapped(4, advertise("c4", fresh(), LOW_ORDER)), Forged, "low order"),
        "a share key of another length": (swapped(4, advertise("c4", fresh(), b"short")), Forged, "invalid"),
        "a stranger": (shares_request([*listed, stranger], "c1"), Inconsistent, "not on the roster"),
        "a stranger's keys shown": (shown(*near[:3], stranger), Inconsistent, "not on the roster"),
        "keys signed by another": (swapped(4, advertise("c4", fresh(), fresh(), "c3")), Forged, "signature of c4"),
        "an unsigned key": (swapped(4, Envelope(listed[4].signed, (listed[3].parts[0],))), Forged, "not what it"),
        "no keys": (swapped(4, envelope(identity("c4"), replaced(listed[4]), [])), MalformedMessage, "0 parts"),
    }


def replaced(signed: Envelope, **changes: object) -> Header:
    return msgspec.structs.replace(signed.signed.authenticate(roster(5)), **changes)


@pytest.mark.parametrize("case", tampered_lists([advertise(name, fresh(), fresh()) for name in names(5)]))
def test_a_tampered_key_list_is_refused(wire: Wire, case: str) -> None:
    request, error, reason = tampered_lists(key_list(wire))[case]
    victim = client(wire, Step.SHARES)
    with pytest.raises(error, match=reason):
        victim.handle(encode(request))
    with pytest.raises(SessionSpent):
        victim.handle(wire.requests[Step.SHARES, "c1"])


def test_a_shorter_key_list_above_the_minimum_is_another_cohort_with_its_own_threshold(wire: Wire) -> None:
    victim = client(wire, Step.SHARES)
    victim.handle(encode(shares_request(key_list(wire)[:4], "c1")))
    assert isinstance(victim._state, Sharing)
    assert victim._state.cohort.graph.threshold == 3


def test_an_honest_key_list_is_what_the_tampered_ones_are_made_from(wire: Wire) -> None:
    assert encode(shares_request(key_list(wire), "c1")) == wire.requests[Step.SHARES, "c1"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_server_drops_unusable_keys_before_it_relays_them(cell: str) -> None:
    """Without masks there are no keys to look at."""
    own = decode(clean_run(make(cell)).replies[Step.KEYS, "c0"], Envelope)
    stolen = msgspec.msgpack.decode(own.parts[0], type=Advertised).mask_key
    same = fresh()
    for bad in ((LOW_ORDER, fresh()), (fresh(), LOW_ORDER), (b"", fresh()), (stolen, fresh()), (same, same)):
        cohort = make(cell)
        header = Header(cohort.terms.session, Step.KEYS, "c3", b"", b"", b"")
        forged = encode(envelope(identity("c3"), header, [msgspec.msgpack.encode(Advertised(*bad, b""))]))

        def swap(step: Step, name: ClientId, data: bytes, forged: bytes = forged, own: Envelope = own) -> bytes:
            return {"c3": forged, "c0": encode(own)}.get(name, data) if step == Step.KEYS else data

        server = AggregationServer(cohort.terms, dict.fromkeys(cohort.clients, b""))
        requests = server.advance(Wire(cohort.clients, on_reply=swap)(server.open()))
        assert ("c3" in requests) == (cell not in MASKED)
        assert ("c3" in server.faults) == (cell in MASKED)


class LowOrder(AggregationClient):
    """Advertises a mask key of low order, so that its pairwise masks would be known to all."""

    def _advertise(self) -> tuple[Advertising, Envelope]:  # type: ignore[override]
        state, honest = super()._advertise()
        assert isinstance(state, Advertising)
        body = msgspec.structs.replace(msgspec.msgpack.decode(honest.parts[0], type=Advertised), mask_key=LOW_ORDER)
        own = self._envelope(Step.KEYS, b"", [msgspec.msgpack.encode(body)])
        return replace(state, own=own), own


def test_a_mask_key_of_low_order_is_refused_before_the_update_is_asked_for() -> None:
    """A server that relays what it should have dropped gets nothing, and nobody pays privacy for it."""
    cohort = make("secagg", types={"c4": LowOrder})
    listed = [decode(each.handle(encode(KeysRequest(b""))), Envelope) for each in cohort.clients.values()]
    dealt = {
        name: decode(each.handle(encode(shares_request(listed, name))), Envelope)
        for name, each in cohort.clients.items()
    }
    given = [taken_out(dealt[peer], place) for peer, place in (("c0", 1), ("c2", 2), ("c3", 2), ("c4", 2))]
    four = InputRequest(mark(names(5), names(4)), tuple(given[:3]))
    copy.copy(cohort.clients["c1"]).handle(encode(four))
    assert cohort.asked_for_update == ["c1"]  # without c4 all is well
    with pytest.raises(Forged, match="low order"):
        cohort.clients["c1"].handle(encode(InputRequest(mark(names(5), names(5)), tuple(given))))
    assert cohort.asked_for_update == ["c1"]


def taken_out(dealt: Envelope, place: int) -> Extract:
    return extract(dealt, tree_of(dealt.parts), place)


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
        client(wire, Step.SHARES).handle(encode(shares_request([*key_list(wire)[:4], theirs], "c1")))


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
        replace(terms, layout=FixedPoint(6, 4.0, 4).layout)
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


# ---- exchange 2: shares


def dealt_to(wire: Wire) -> list[Extract]:
    """What c0, c2, c3 and c4 dealt to c1."""
    return list(decode(wire.requests[Step.INPUT, "c1"], InputRequest).dealt)


EVERYONE = mark(names(5), names(5))


@pytest.mark.parametrize("shared", [("c0", "c1", "c2", "c3"), ("c0", "c1", "c3", "c4"), names(5)])
def test_missing_shares_above_the_threshold_are_dropouts(wire: Wire, shared: tuple[str, ...]) -> None:
    given = [each for peer, each in zip(("c0", "c2", "c3", "c4"), dealt_to(wire), strict=True) if peer in shared]
    answer = decode(
        client(wire, Step.INPUT).handle(encode(InputRequest(mark(names(5), shared), tuple(given)))), Envelope
    )
    answer.open(roster(5), make("secagg").terms.session, Step.INPUT, "c1")


@pytest.mark.parametrize("shared", [("c0", "c1", "c2"), ("c1",), (), ("c0", "c2", "c3", "c4")])
def test_missing_shares_below_the_threshold_or_its_own_are_refused(wire: Wire, shared: tuple[str, ...]) -> None:
    given = [each for peer, each in zip(("c0", "c2", "c3", "c4"), dealt_to(wire), strict=True) if peer in shared]
    with pytest.raises(Inconsistent, match="needed"):
        client(wire, Step.INPUT).handle(encode(InputRequest(mark(names(5), shared), tuple(given))))


@pytest.mark.parametrize("shared", [b"", b"\x1f\x00", b"\x3f", b"\x9f"])
def test_marks_of_who_shared_that_fit_no_key_list_are_refused(wire: Wire, shared: bytes) -> None:
    """Of another length, or of a sixth and an eighth of five."""
    assert decode(wire.requests[Step.INPUT, "c1"], InputRequest).shared == EVERYONE == b"\x1f"
    with pytest.raises(MalformedMessage, match="mark"):
        client(wire, Step.INPUT).handle(encode(InputRequest(shared, tuple(dealt_to(wire)))))


def misplaced_shares(wire: Wire) -> dict[str, tuple[list[Extract], type[Exception]]]:
    dealt = dealt_to(wire)
    first, rest = dealt[0], dealt[1:]
    others = decode(wire.requests[Step.INPUT, "c2"], InputRequest).dealt  # what c0 dealt to c2
    own = taken_out(reply(wire, Step.SHARES, "c1"), 1)
    return {
        "one dealer twice": ([first, *dealt], Inconsistent),
        "one dealer in place of another": ([first, first, *dealt[2:]], Inconsistent),
        "one dealer less than marked": (rest, Inconsistent),
        "none": ([], Inconsistent),
        "out of order": (dealt[::-1], Inconsistent),
        "another's part": ([others[0], *rest], Inconsistent),
        "another's part as its own": ([msgspec.structs.replace(others[0], index=first.index), *rest], Forged),
        "another dealer's part": ([msgspec.structs.replace(first, part=dealt[1].part), *rest], Forged),
        "a part that was made up": ([msgspec.structs.replace(first, part=b"made up"), *rest], Forged),
        "a part cut short": ([msgspec.structs.replace(first, part=first.part[:-1]), *rest], Forged),
        "the commitment to the seed": ([taken_out(reply(wire, Step.SHARES, "c0"), 0), *rest], Inconsistent),
        "what it dealt itself too": ([own, *dealt], Inconsistent),
        "what it dealt itself": ([own, *rest], Inconsistent),
    }


@pytest.fixture(scope="module")
def finished() -> Wire:
    return clean_run(make("secagg"))


@pytest.mark.parametrize("case", misplaced_shares(clean_run(make("secagg"))))
def test_shares_that_come_twice_or_are_for_another_are_refused(finished: Wire, case: str) -> None:
    """Refused, not complained about: no dealer can be blamed for what a server did."""
    given, error = misplaced_shares(finished)[case]
    with pytest.raises(error):
        client(finished, Step.INPUT).handle(encode(InputRequest(EVERYONE, tuple(given))))


def spoiled_proofs(wire: Wire, given: Extract) -> dict[str, tuple[Extract, type[Exception]]]:
    """The same part of c0's for c1 with a proof of something else."""
    first, second = dealt_to(wire)[:2]

    def changed(**fields: object) -> Extract:
        return msgspec.structs.replace(given, **fields)

    return {
        "unsigned": (changed(signed=Signed(given.signed.header, bytes(64))), Forged),
        "with another signature of its dealer": (changed(signed=Signed(given.signed.header, b"\7" * 64)), Forged),
        "of another dealer": (changed(signed=second.signed), Forged),
        "of another exchange": (changed(signed=reply(wire, Step.KEYS, "c0").signed), Inconsistent),
        "of another place": (changed(index=first.index + 1), Forged),
        "of a negative place": (changed(index=-1), MalformedMessage),
        "of a body with a part more": (changed(parts=first.parts + 1), Inconsistent),
        "of a body that is too small for it": (changed(parts=1), MalformedMessage),
        "by nothing": (changed(path=b""), MalformedMessage),
        "of something else": (changed(path=second.path), Forged),
        "that is too long": (changed(path=given.path + bytes(32)), MalformedMessage),
        "that is cut short": (changed(path=given.path[:-1]), MalformedMessage),
    }


def no_share(wire: Wire) -> Extract:
    """What c0 could sign and deal to c1 that does not open."""
    parts = list(reply(wire, Step.SHARES, "c0").parts)
    return taken_out(envelope(identity("c0"), replaced(reply(wire, Step.SHARES, "c0")), [parts[0], b"", *parts[2:]]), 1)


PROOFS = list(spoiled_proofs(clean_run(make("secagg")), Extract(Signed(b"", b""), b"", 1, 5, b"")))


@pytest.mark.parametrize("case", PROOFS)
def test_a_share_that_does_not_open_is_complained_about_only_with_proof_that_its_dealer_signed_it(
    finished: Wire, case: str
) -> None:
    """Or a server could have an honest dealer blamed."""
    bad, rest = no_share(finished), dealt_to(finished)[1:]
    answer = decode(client(finished, Step.INPUT).handle(encode(InputRequest(EVERYONE, (bad, *rest)))), Envelope)
    assert answer.signed.says(Step.COMPLAINT)
    given, error = spoiled_proofs(finished, bad)[case]
    victim = client(finished, Step.INPUT)
    with pytest.raises(error):
        victim.handle(encode(InputRequest(EVERYONE, (given, *rest))))
    with pytest.raises(SessionSpent):
        victim.handle(finished.requests[Step.INPUT, "c1"])


@pytest.mark.parametrize("case", PROOFS)
def test_a_share_that_opens_needs_no_proof(finished: Wire, case: str) -> None:
    """Only its dealer and its receiver can make the key that it is sealed with, which names key list and session."""
    first, *rest = dealt_to(finished)
    given, _ = spoiled_proofs(finished, first)[case]
    victim = client(finished, Step.INPUT)
    answer = decode(victim.handle(encode(InputRequest(EVERYONE, (given, *rest)))), Envelope)
    answer.open(roster(5), make("secagg").terms.session, Step.INPUT, "c1")
    honest = finished.before[Step.CONSISTENCY, "c1"]._state
    assert isinstance(victim._state, Masked) and isinstance(honest, Masked)
    assert victim._state.held == honest.held


def test_shares_dealt_to_another_key_list_are_refused(finished: Wire) -> None:
    """Rightly signed by c0 in this session, which only a server that shows two key lists can get from it."""
    victim = client(finished, Step.SHARES, "c0")
    elsewhere = decode(victim.handle(encode(shares_request(key_list(finished)[:4], "c0"))), Envelope)
    padded = envelope(identity("c0"), elsewhere.signed.authenticate(roster(5)), [*elsewhere.parts, b""])
    for other, error in ((elsewhere, Inconsistent), (padded, Inconsistent)):
        with pytest.raises(error, match="this key list"):
            client(finished, Step.INPUT).handle(
                encode(InputRequest(EVERYONE, (taken_out(other, 1), *dealt_to(finished)[1:])))
            )


class WrongShares(AggregationClient):
    """Deals shares of its self seed and mask key that lie on polynomials of other secrets, rightly committed to."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        points = self._terms.roster.points
        holders = [points[name] for name in cohort.graph.holders(self._name)]
        wrong = shamir.split(bytes([7]) * 32, cohort.graph.threshold, holders, lambda count: bytes([9]) * count)
        return super()._deal(key, cohort, receiver, SharePair(wrong[points[receiver]], wrong[points[receiver]]))


class ShortShares(AggregationClient):
    """Deals shares that are no field elements, rightly committed to."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        return super()._deal(key, cohort, receiver, SharePair(b"short", b"\xff" * 33))


class Uncommitted(AggregationClient):
    """Deals one receiver a share that it did not commit to."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        dealt = super()._deal(key, cohort, receiver, pair)
        if receiver != "c0":
            return dealt
        return msgspec.msgpack.encode(
            msgspec.structs.replace(msgspec.msgpack.decode(dealt, type=Dealt), seed_commitment=bytes(32))
        )


class WrongOpening(AggregationClient):
    """Opens another share of c0 than it was dealt."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[object, Envelope]:  # type: ignore[override]
        spent, honest = super()._unmask(state, request)
        opened = msgspec.msgpack.decode(honest.parts[0], type=Opened).shares
        body = Opened((bytes(33), *opened[1:]))
        return spent, self._envelope(Step.UNMASK, state.cohort.keys, [msgspec.msgpack.encode(body)])


@pytest.mark.parametrize("dishonest", [WrongShares, ShortShares])
@pytest.mark.parametrize("silent", [{}, {"c2": int(Step.INPUT)}])
@pytest.mark.parametrize("cell", MASKED)
def test_a_dealer_of_bad_shares_aborts_the_attempt_and_is_named(
    cell: str, dishonest: type[AggregationClient], silent: dict[str, int]
) -> None:
    """Both secrets: its self seed where it survives, its mask key where it drops out."""
    cohort = make(cell, types={"c2": dishonest})
    with pytest.raises(RoundAborted) as aborted:
        cohort.run(Wire(cohort.clients, silent))
    assert set(aborted.value.faults) == {"c2"}
    assert "c2" in str(aborted.value)


def test_who_gets_a_share_that_was_not_committed_to_complains_about_the_dealer_and_is_spent() -> None:
    """The update is not asked for, and the sum can do without one: who is right cannot be known from one word."""
    cohort = make("secagg", types={"c2": Uncommitted})
    wire = Wire(cohort.clients)
    aggregate = cohort.run(wire)
    complaint = reply(wire, Step.INPUT, "c0")
    complaint.open(cohort.terms.roster, cohort.terms.session, Step.COMPLAINT, "c0")
    assert msgspec.msgpack.decode(complaint.parts[0], type=Complaint) == Complaint(("c2",))
    assert "c0" not in cohort.asked_for_update and not wire.refusals
    assert dict(aggregate.faults) == {"c0": "cannot open the shares of c2"}
    assert aggregate.contributors == ("c1", "c2", "c3", "c4") and cohort.is_right(aggregate)
    with pytest.raises(SessionSpent):
        cohort.clients["c0"].handle(wire.requests[Step.INPUT, "c0"])


@pytest.mark.parametrize("cell", MASKED)
def test_who_opens_a_share_that_it_was_not_dealt_is_named_and_not_needed(cell: str) -> None:
    cohort = make(cell, types={"c3": WrongOpening})
    aggregate = cohort.run(Wire(cohort.clients))
    assert set(aggregate.faults) == {"c3"} and "c0" in aggregate.faults["c3"]
    assert cohort.is_right(aggregate)


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
        client(wire, Step.CONSISTENCY).handle(encode(ConsistencyRequest(mark(names(5), survivors))))


@pytest.mark.parametrize("survivors", [names(5), ("c0", "c1", "c2", "c4")])
def test_a_survivor_who_dealt_nothing_is_not_signed_for(survivors: tuple[str, ...]) -> None:
    wire = without("c4")
    client(wire, Step.CONSISTENCY).handle(encode(ConsistencyRequest(mark(names(5), names(4)))))
    with pytest.raises(Inconsistent, match="dealt no shares"):
        client(wire, Step.CONSISTENCY).handle(encode(ConsistencyRequest(mark(names(5), survivors))))


@pytest.mark.parametrize("survivors", [b"", b"\x1f\x00", b"\x00\x1f", b"\x3f", b"\x9f", b"\xff"])
def test_marks_of_survivors_that_fit_no_key_list_are_not_signed(wire: Wire, survivors: bytes) -> None:
    """Too few bytes, too many, or bits beyond the five members."""
    with pytest.raises(MalformedMessage, match="mark"):
        client(wire, Step.CONSISTENCY).handle(encode(ConsistencyRequest(survivors)))


def consent(wire: Wire, name: ClientId, survivors: Sequence[ClientId]) -> tuple[AggregationClient, Signed]:
    consenting = client(wire, Step.CONSISTENCY, name)
    signed = decode(consenting.handle(encode(ConsistencyRequest(mark(names(5), survivors)))), Envelope).signed
    return consenting, signed


def test_only_enough_signatures_over_the_very_same_survivors_open_shares(wire: Wire) -> None:
    everyone, four = names(5), ("c0", "c1", "c2", "c3")
    victim, own = consent(wire, "c1", everyone)
    same = [consent(wire, name, everyone)[1] for name in ("c0", "c2", "c3")]
    other = consent(wire, "c0", four)[1]
    inputs = [reply(wire, Step.INPUT, name).signed for name in everyone]
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
    opened = msgspec.msgpack.decode(reply(wire, Step.UNMASK, "c1").parts[0], type=Opened).shares
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
            candidate = client(wire, state)
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
            client(masked, step).handle(plain.requests[Step.INPUT, "c1"])
    with pytest.raises(SessionSpent):
        client(plain, Step.INPUT).handle(masked.requests[Step.SHARES, "c1"])
    with pytest.raises(SessionSpent):
        client(plain, Step.INPUT).handle(masked.requests[Step.INPUT, "c1"])


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
