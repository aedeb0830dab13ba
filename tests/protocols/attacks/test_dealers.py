"""Attacks by those who deal shares, and with complaints about them: who is blamed for what does not open."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import pytest

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.disputes import suspects
from protocols.aggregation.messages import (
    Complaint,
    Dealt,
    Envelope,
    Extract,
    InputRequest,
    SharePair,
    membership_digest,
)
from protocols.aggregation.secrets import commitment, share_key
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Step
from protocols.aggregation.states import Cohort as Accepted
from protocols.aggregation.states import Sharing, Spent, State
from protocols.aggregation.summing import Inputs
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages, Replies, drive
from protocols.errors import Forged, RoundAborted
from protocols.primitives import AgreementKey, open_sealed
from protocols.wire import decode, encode
from securefl import Client, federate
from securefl.announcement import Announcement
from tests.protocols.attacks.adversary import cohort_of
from tests.protocols.attacks.test_shares import Trusting
from tests.protocols.cohort import Cohort, Wire, names
from tests.securefl import federation

DEALER = "c2"
HONEST = tuple(name for name in names(5) if name != DEALER)


# ---- dishonest dealers


class OffPolynomial(AggregationClient):
    """Deals shares that are rightly committed to and open, of other secrets than its own."""

    def _deal(self, key: AgreementKey, cohort: Accepted, receiver: ClientId, pair: SharePair) -> bytes:
        points = self._terms.roster.points
        holders = [points[name] for name in cohort.graph.holders(self._name)]
        wrong = shamir.split(bytes([7]) * 32, cohort.graph.threshold, holders, lambda count: bytes([9]) * count)
        share = wrong[points[receiver]]
        return super()._deal(key, cohort, receiver, SharePair(share, share))


class DoesNotOpen(AggregationClient):
    """Deals what nobody can open."""

    def _deal(self, key: AgreementKey, cohort: Accepted, receiver: ClientId, pair: SharePair) -> bytes:
        dealt = msgspec.msgpack.decode(super()._deal(key, cohort, receiver, pair), type=Dealt)
        return msgspec.msgpack.encode(msgspec.structs.replace(dealt, sealed=dealt.sealed[::-1]))


def attempt(
    server: type[AggregationServer],
    number: int,
    dealer: type[AggregationClient],
    others: type[AggregationClient] = AggregationClient,
    without: Collection[ClientId] = (),
    wire: type[Wire] = Wire,
) -> tuple[Cohort, Aggregate]:
    """One attempt at the round, with all but those who were to blame for the last."""
    cohort = cohort_of(others, attempt=number, others={DEALER: dealer})
    asked = dict.fromkeys((name for name in cohort.clients if name not in without), b"")
    return cohort, drive(server(cohort.terms, asked), wire(cohort.clients))


def blamed(aborted: RoundAborted) -> set[ClientId]:
    return {name for name, why in aborted.faults.items() if why.startswith("blamed: ")}


def aborts(*given: object) -> RoundAborted:
    with pytest.raises(RoundAborted) as caught:
        attempt(*given)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.attack("a dealer of shares off the polynomial")
def test_a_dealer_of_other_secrets_shares_is_named_and_the_next_attempt_does_without() -> None:
    cohort, spoiled = attempt(Trusting, 1, OffPolynomial)
    assert spoiled.contributors == names(5) and not cohort.is_right(spoiled)
    named = blamed(aborts(AggregationServer, 1, OffPolynomial))
    assert named == {DEALER}
    cohort, aggregate = attempt(AggregationServer, 2, OffPolynomial, without=named)
    assert aggregate.contributors == HONEST and cohort.is_right(aggregate)


class GivesUp(AggregationClient):
    """Leaves when a share does not open, without saying whose."""

    def _receive_all(self, state: Sharing, request: InputRequest) -> tuple[dict[ClientId, SharePair], list[ClientId]]:
        held, wrong = super()._receive_all(state, request)
        if wrong:
            raise Forged("a share does not open")
        return held, wrong


@pytest.mark.attack("a dealer of shares that do not open")
def test_a_dealer_of_what_does_not_open_is_named_and_the_next_attempt_does_without() -> None:
    """Among clients that do not complain it can stop every attempt for good."""
    for number in (1, 2):
        assert not blamed(aborts(AggregationServer, number, DoesNotOpen, GivesUp))
    aborted = aborts(AggregationServer, 1, DoesNotOpen)
    assert blamed(aborted) == {DEALER}
    cohort, aggregate = attempt(AggregationServer, 2, DoesNotOpen, without=blamed(aborted))
    assert aggregate.contributors == HONEST and cohort.is_right(aggregate)


@pytest.mark.parametrize("silent", [{}, {"c4": int(Step.INPUT)}])
def test_two_bad_dealers_are_named_at_once(silent: dict[ClientId, int]) -> None:
    """Of one the self seed does not rebuild, of the other that too or, where it dropped, its mask key."""
    dealers = {DEALER, "c4"}
    cohort = cohort_of(AggregationClient, others=dict.fromkeys(dealers, OffPolynomial))
    with pytest.raises(RoundAborted) as caught:
        cohort.run(Wire(cohort.clients, silent))
    assert blamed(caught.value) == dealers == set(caught.value.faults)
    cohort, aggregate = attempt(AggregationServer, 2, OffPolynomial, without=dealers)
    assert aggregate.contributors == ("c0", "c1", "c3") and cohort.is_right(aggregate) and not aggregate.faults


@pytest.mark.parametrize("dealer", [OffPolynomial, DoesNotOpen])
def test_a_federation_goes_on_without_a_bad_dealer(dealer: type[AggregationClient]) -> None:
    class Dishonest(Client):
        def _begin(self, announced: Announcement, request: bytes) -> bytes:
            reply = super()._begin(announced, request)
            assert self._attempt is not None and self._attempt.session is not None
            self._attempt.session.__class__ = dealer
            return reply

    owners = federation.clients()
    owners[1] = Dishonest("bob", federation.records(1), federation.model, test=federation.TEST)
    (record,) = federate(federation.server(), owners, 1)
    assert record.attempt == 2 and record.contributors == ("ada", "cyd", "dan", "eve")


class CommitsToOthers(AggregationClient):
    """Deals shares that open, and commits to something else."""

    def _deal(self, key: AgreementKey, cohort: Accepted, receiver: ClientId, pair: SharePair) -> bytes:
        dealt = msgspec.msgpack.decode(super()._deal(key, cohort, receiver, pair), type=Dealt)
        return msgspec.msgpack.encode(msgspec.structs.replace(dealt, seed_commitment=commitment(bytes(33))))


class TakesUncommitted(AggregationClient):
    """Is content with a share that opens."""

    def _receive(self, state: Sharing, dealer: ClientId, part: bytes) -> SharePair:
        secret = state.share.agree(state.cohort.advertised[dealer].share_key)
        key = share_key(self._terms, secret, state.cohort.keys, dealer, self._name)
        return read([open_sealed(key, read([part], Dealt).sealed, state.cohort.keys)], SharePair)


@pytest.mark.attack("a dealer that frames its receivers by its commitments")
def test_receivers_are_not_at_fault_for_shares_that_were_never_committed_to() -> None:
    aborted = aborts(AggregationServer, 1, CommitsToOthers, TakesUncommitted)
    assert set(aborted.faults) == set(HONEST)  # each opened what it was dealt, and is said to have forged it
    named = blamed(aborts(AggregationServer, 1, CommitsToOthers))
    assert named == {DEALER}
    cohort, aggregate = attempt(AggregationServer, 2, CommitsToOthers, without=named)
    assert aggregate.contributors == HONEST and cohort.is_right(aggregate)


# ---- dishonest complaints


class Accuses(AggregationClient):
    """Complains about an honest dealer, whose shares open very well."""

    def _mask(self, state: Sharing, request: InputRequest) -> tuple[State, Envelope]:
        body = msgspec.msgpack.encode(Complaint((DEALER,)))
        members = membership_digest(state.cohort.keys, request.shared)
        return Spent(), self._envelope(Step.COMPLAINT, members, [body])


class BelievesOne(AggregationServer):
    """Takes anybody's word."""

    def advance(self, replies: Replies) -> Messages:
        requests = super().advance(replies)
        if type(self._stage) is Inputs:
            self._stage = BelievesAnybody(self._stage.cohort, self._stage._dealt)
        return requests


class BelievesAnybody(Inputs):
    @property
    def blamed(self) -> Mapping[ClientId, str]:
        return dict.fromkeys(self.disputes, "somebody complains")


def accused(server: type[AggregationServer]) -> tuple[Cohort, Aggregate]:
    cohort = cohort_of(AggregationClient, others={"c0": Accuses})
    return cohort, drive(server(cohort.terms, dict.fromkeys(cohort.clients, b"")), Wire(cohort.clients))


@pytest.mark.attack("a lying complaint about an honest dealer")
def test_one_complaint_costs_this_sum_only_who_complains() -> None:
    _, aggregate = accused(BelievesOne)
    assert aggregate.faults[DEALER] == "blamed: somebody complains"  # out of the next attempt
    cohort, aggregate = accused(AggregationServer)
    assert set(aggregate.dropped) == {"c0"} and not any(why.startswith("blamed: ") for why in aggregate.faults.values())
    assert aggregate.faults[DEALER] == "disputed: c0 cannot open its shares"  # of two, one lies: both are left out
    assert set(aggregate.faults) == {"c0", DEALER} == suspects(aggregate.disputes)
    assert DEALER in aggregate.contributors and cohort.is_right(aggregate)


class CheatsOne(AggregationClient):
    """Deals to one of all what does not open: too few complain for it to be blamed."""

    def _deal(self, key: AgreementKey, cohort: Accepted, receiver: ClientId, pair: SharePair) -> bytes:
        dealt = super()._deal(key, cohort, receiver, pair)
        if receiver != "c0":
            return dealt
        honest = msgspec.msgpack.decode(dealt, type=Dealt)
        return msgspec.msgpack.encode(msgspec.structs.replace(honest, sealed=honest.sealed[::-1]))


def test_a_liar_and_a_bad_dealer_look_alike_and_the_next_attempt_is_rid_of_the_dispute() -> None:
    """Of two, one lies, and the server cannot tell which: without both there is none."""
    for dishonest in ({DEALER: CheatsOne}, {"c0": Accuses}):
        cohort = cohort_of(AggregationClient, others=dishonest)
        first = cohort.run(Wire(cohort.clients))
        disputed = "disputed: c0 cannot open its shares"
        assert dict(first.faults) == {"c0": f"cannot open the shares of {DEALER}", DEALER: disputed}
        assert suspects(first.disputes) == {"c0", DEALER} and cohort.is_right(first)
        cohort = cohort_of(AggregationClient, attempt=2, others=dishonest)
        asked = dict.fromkeys((name for name in cohort.clients if name not in suspects(first.disputes)), b"")
        again = drive(AggregationServer(cohort.terms, asked), Wire(cohort.clients))
        assert not again.faults and not again.disputes and cohort.is_right(again)


class AltersShares(Wire):
    """The server's own doing: what it relays of one honest dealer is not what was dealt."""

    def _ask(self, step: Step, name: ClientId, data: bytes) -> bytes | None:
        if step == Step.INPUT and name != DEALER:
            honest = decode(data, InputRequest)
            dealers = [dealer for dealer in names(5) if dealer != name]
            dealt = [
                msgspec.structs.replace(given, part=given.part[::-1]) if dealer == DEALER else given
                for dealer, given in zip(dealers, honest.dealt, strict=True)
            ]
            data = encode(InputRequest(honest.shared, tuple(dealt)))
        return super()._ask(step, name, data)


class ComplainsBlindly(AggregationClient):
    """Complains about whoever is said to have dealt what does not open."""

    def _check_dealt(self, cohort: Accepted, dealer: ClientId, given: Extract) -> None:
        pass


@pytest.mark.attack("altered shares relayed to make receivers complain")
def test_clients_complain_only_about_what_the_dealer_signed() -> None:
    assert blamed(aborts(AggregationServer, 1, AggregationClient, ComplainsBlindly, (), AltersShares)) == {DEALER}
    cohort = cohort_of(AggregationClient)
    wire = AltersShares(cohort.clients)
    with pytest.raises(RoundAborted) as caught:
        cohort.run(wire)
    assert not blamed(caught.value)
    assert set(wire.refusals) == set(HONEST) and all(isinstance(why, Forged) for why in wire.refusals.values())
