"""Dealt shares that do not open: who says so, who is believed, and what saying so gives away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.disputes import suspects
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Complaint,
    Dealt,
    Envelope,
    Header,
    SharePair,
    envelope,
    membership_digest,
)
from protocols.aggregation.session import Step
from protocols.aggregation.states import Cohort as Accepted
from protocols.base import ClientId, Messages
from protocols.degree import Sparse
from protocols.errors import RoundAborted, SessionSpent
from protocols.graph import CohortRules, two_thirds
from protocols.primitives import AgreementKey, seal
from protocols.wire import decode, encode
from tests.protocols.cohort import MASKED, Tamper, Wire, identity, make, names, roster

Spoil = Callable[[Dealt], Dealt]
# What a client says in place of its input, given that input's header.
Say = Callable[[Header], Envelope]
SPOILS: dict[str, Spoil] = {
    "another seed's commitment": lambda dealt: msgspec.structs.replace(dealt, seed_commitment=bytes(32)),
    "another key's commitment": lambda dealt: msgspec.structs.replace(dealt, key_commitment=bytes(32)),
    "no commitment": lambda dealt: msgspec.structs.replace(dealt, seed_commitment=b""),
    "nothing sealed": lambda dealt: msgspec.structs.replace(dealt, sealed=b""),
    "a byte changed": lambda dealt: msgspec.structs.replace(dealt, sealed=dealt.sealed[:-1] + b"\x00\x00"),
    "under another key": lambda dealt: msgspec.structs.replace(dealt, sealed=seal(bytes(32), b"share", b"")),
}


def dealing_badly(receivers: Collection[ClientId], spoil: str = "another seed's commitment") -> type[AggregationClient]:
    """A dealer of something that is no share to some, and of good shares to the others."""

    class BadDealer(AggregationClient):
        def _deal(self, key: AgreementKey, cohort: Accepted, receiver: ClientId, pair: SharePair) -> bytes:
            dealt = super()._deal(key, cohort, receiver, pair)
            if receiver not in receivers:
                return dealt
            return msgspec.msgpack.encode(SPOILS[spoil](msgspec.msgpack.decode(dealt, type=Dealt)))

    return BadDealer


def saying(count: int, lies: Mapping[ClientId, Say]) -> Tamper:
    """Of so many clients, some that send something of their own in place of their input."""

    def tamper(step: Step, name: ClientId, data: bytes) -> bytes:
        if step != Step.INPUT or name not in lies:
            return data
        return encode(lies[name](decode(data, Envelope).signed.authenticate(roster(count))))

    return tamper


COUNT = 7
T = two_thirds(COUNT)


def complaint(*dealers: ClientId, signer: ClientId | None = None, **fields: object) -> Say:
    """A complaint about these, signed by its sender unless another is given, with other words in its header."""

    def say(header: Header) -> Envelope:
        said = msgspec.structs.replace(header, step=Step.COMPLAINT, seed=b"", **fields)
        return envelope(identity(signer or header.sender), said, [msgspec.msgpack.encode(Complaint(dealers))])

    return say


# ---- one bad dealing


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("cell", MASKED)
def test_one_bad_dealing_makes_its_receiver_a_dropout_and_the_sum_is_right(cell: str, spoil: str) -> None:
    cohort = make(cell, types={"c2": dealing_badly(["c0"], spoil)})
    wire = Wire(cohort.clients)
    aggregate = cohort.run(wire)
    disputed = {"c2": "disputed: c0 cannot open its shares"}
    assert dict(aggregate.faults) == {"c0": "cannot open the shares of c2"} | disputed
    assert suspects(aggregate.disputes) == {"c0", "c2"}
    assert dict(aggregate.dropped) == {"c0": "exchange 2"}
    assert aggregate.sum.recovered == ("c0",) and aggregate.contributors == ("c1", "c2", "c3", "c4")
    assert cohort.is_right(aggregate)
    assert wire.refusals == {} and "c0" not in cohort.asked_for_update
    with pytest.raises(SessionSpent):
        cohort.clients["c0"].handle(wire.requests[Step.INPUT, "c0"])


def test_all_bad_dealings_to_one_client_are_named_at_once() -> None:
    cohort = make("secagg", types=dict.fromkeys(["c3", "c1"], dealing_badly(["c0"])))
    wire = Wire(cohort.clients)
    aggregate = cohort.run(wire)
    assert msgspec.msgpack.decode(wire.reply(Step.INPUT, "c0").parts[0], type=Complaint).dealers == ("c1", "c3")
    disputed = dict.fromkeys(["c1", "c3"], "disputed: c0 cannot open its shares")
    assert dict(aggregate.faults) == {"c0": "cannot open the shares of c1, c3"} | disputed
    assert suspects(aggregate.disputes) == {"c0"} and cohort.is_right(aggregate)


def test_a_complaint_reveals_nothing_but_names() -> None:
    """It is to the bit what anybody with the sender's identity could write who knows names, key list and sharers."""
    cohort = make("secagg", types={"c2": dealing_badly(["c0"])})
    wire = Wire(cohort.clients)
    cohort.run(wire)
    said = wire.reply(Step.INPUT, "c0")
    keys = wire.reply(Step.SHARES, "c0").signed.authenticate(cohort.terms.roster).keys
    members = membership_digest(keys, mark(names(5), names(5)))
    header = Header(cohort.terms.session, Step.COMPLAINT, "c0", members, b"", b"")
    assert said == envelope(identity("c0"), header, [msgspec.msgpack.encode(Complaint(("c2",)))])


# ---- who is blamed


@pytest.mark.parametrize(("count", "receivers"), [(4, 2), (5, 2), (7, 3), (10, 4)])
@pytest.mark.parametrize("cell", MASKED)
def test_more_complaints_than_holders_may_be_missing_abort_the_attempt_and_name_the_dealer(
    cell: str, count: int, receivers: int
) -> None:
    assert receivers == count - two_thirds(count) + 1
    cheated, dealer = names(count)[:receivers], names(count)[-1]
    cohort = make(cell, count, types={dealer: dealing_badly(cheated)})
    with pytest.raises(RoundAborted, match="clients are left after exchange 2") as aborted:
        cohort.run(Wire(cohort.clients))
    faults = aborted.value.faults
    assert faults[dealer] == f"blamed: its shares do not open, say {receivers} of those who were dealt them"
    assert set(faults) == {dealer, *cheated} and set(aborted.value.dropped) == set(cheated)
    assert suspects(aborted.value.disputes) == {dealer}


@pytest.mark.parametrize(("count", "receivers"), [(4, 1), (5, 1), (7, 2), (10, 3)])
def test_as_many_complaints_as_holders_may_be_missing_blame_nobody_and_the_sum_is_right(
    count: int, receivers: int
) -> None:
    cheated = names(count)[:receivers]
    cohort = make("secagg", count, types={"c3": dealing_badly(cheated)})
    aggregate = cohort.run(Wire(cohort.clients))
    assert set(aggregate.dropped) == set(cheated) and set(aggregate.faults) == {*cheated, "c3"}
    assert aggregate.faults["c3"] == f"disputed: {', '.join(cheated)} cannot open its shares"
    assert suspects(aggregate.disputes) == ({"c3"} if receivers > 1 else {"c3", *cheated})
    assert "c3" in aggregate.contributors and cohort.is_right(aggregate)


@settings(max_examples=15)
@given(st.integers(4, 10), st.data())
def test_liars_that_the_default_threshold_tolerates_get_no_honest_dealer_blamed(
    count: int, data: st.DataObject
) -> None:
    """One of four or more, and any number below a third: whomever they complain about, together or alone."""
    everyone = names(count)
    liars = data.draw(st.sets(st.sampled_from(everyone), min_size=1, max_size=(count - 1) // 3))
    accused = {
        liar: data.draw(st.sets(st.sampled_from([n for n in everyone if n != liar]), min_size=1)) for liar in liars
    }
    lies = {liar: complaint(*dealers) for liar, dealers in accused.items()}
    cohort = make("secagg", count)
    aggregate = cohort.run(Wire(cohort.clients, on_reply=saying(count, lies)))
    about = set().union(*accused.values())
    assert set(aggregate.dropped) == liars and set(aggregate.faults) == liars | about
    assert {name for name, fault in aggregate.faults.items() if fault.startswith("disputed: ")} == about - liars
    assert all(aggregate.faults[liar].startswith("cannot open the shares of ") for liar in liars)
    assert suspects(aggregate.disputes) == suspects(disputes(accused))
    assert cohort.is_right(aggregate)


def disputes(accused: Mapping[ClientId, Collection[ClientId]]) -> dict[ClientId, set[ClientId]]:
    """Of each dealer, who complains about it."""
    every = set().union(*accused.values())
    return {dealer: {name for name, dealers in accused.items() if dealer in dealers} for dealer in every}


# ---- complaints that do not count

IMPROPER: dict[str, Say] = {
    "about who dealt nothing": complaint("c6"),
    "about a dealer and who dealt nothing": complaint("c3", "c6"),
    "about itself": complaint("c0"),
    "about a dealer and itself": complaint("c3", "c0"),
    "about a stranger": complaint("c3", "c9"),
    "about nobody": complaint(),
    "in another session": complaint("c3", session=bytes(32)),
    "in another key list": complaint("c3", keys=bytes(32)),
    "in no key list": complaint("c3", keys=b""),
    "as another": complaint("c3", sender="c1"),
    "signed by another": complaint("c3", signer="c1"),
    "by a stranger": complaint("c3", sender="c9"),
    "of nothing": lambda header: envelope(
        identity("c0"), msgspec.structs.replace(header, step=Step.COMPLAINT, seed=b""), []
    ),
    "of two bodies": lambda header: envelope(
        identity("c0"),
        msgspec.structs.replace(header, step=Step.COMPLAINT, seed=b""),
        [msgspec.msgpack.encode(Complaint(("c3",)))] * 2,
    ),
    "of no names": lambda header: envelope(
        identity("c0"), msgspec.structs.replace(header, step=Step.COMPLAINT, seed=b""), [b"\x91\x91\x01"]
    ),
    "changed on its way": lambda header: Envelope(
        complaint("c2")(header).signed, (msgspec.msgpack.encode(Complaint(("c3",))),)
    ),
}


def blamed_with(first: Say) -> RoundAborted:
    """c1 and c2 complain about c3, rightly as far as the server can tell; c0 says something else; c6 dealt nothing.

    Of the six that dealt, five (t of seven) would have to be left; two complaints are what the threshold tolerates.
    """
    cohort = make("secagg", COUNT)
    lies = {"c0": first, "c1": complaint("c3"), "c2": complaint("c3")}
    with pytest.raises(RoundAborted) as aborted:
        cohort.run(Wire(cohort.clients, {"c6": int(Step.SHARES)}, on_reply=saying(COUNT, lies)))
    assert set(aborted.value.dropped) == {"c0", "c1", "c2", "c6"}
    return aborted.value


@pytest.mark.parametrize("case", IMPROPER)
def test_an_improper_complaint_is_a_fault_of_its_sender_and_counts_against_nobody(case: str) -> None:
    """With it there would be three, one more than the threshold tolerates."""
    assert COUNT - T == 2
    assert blamed_with(complaint("c3")).faults["c3"].startswith("blamed: ")
    aborted = blamed_with(IMPROPER[case])
    faults = aborted.faults
    assert set(faults) == {"c0", "c1", "c2", "c3"} and not faults["c0"].startswith("cannot open")
    assert faults["c3"] == "disputed: c1, c2 cannot open its shares" and suspects(aborted.disputes) == {"c3"}


def test_a_complaint_counts_once_however_often_it_names_a_dealer_or_comes() -> None:
    cohort = make("secagg", COUNT)
    twice = saying(COUNT, {"c0": complaint("c3", "c3", "c3", "c3")})

    class Echo(Wire):
        def __call__(self, requests):  # type: ignore[no-untyped-def]
            for name, data in super().__call__(requests):
                yield name, data
                yield name, data

    aggregate = cohort.run(Echo(cohort.clients, on_reply=twice))
    assert "blamed" not in aggregate.faults["c3"] and dict(aggregate.dropped) == {"c0": "exchange 2"}
    assert suspects(aggregate.disputes) == {"c0", "c3"}
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize(
    ("cell", "step"),
    [("secagg", step) for step in (Step.KEYS, Step.SHARES, Step.CONSISTENCY, Step.UNMASK)]
    + [("plain", Step.KEYS), ("plain", Step.INPUT), ("ckks-unmasked", Step.INPUT)],
)
def test_a_complaint_where_nothing_was_dealt_or_in_another_exchange_is_a_fault_of_its_sender(
    cell: str, step: Step
) -> None:
    cohort = make(cell)

    def tamper(at: Step, name: ClientId, data: bytes) -> bytes:
        if (at, name) != (step, "c0"):
            return data
        return encode(complaint("c3")(decode(data, Envelope).signed.authenticate(roster(5))))

    aggregate = cohort.run(Wire(cohort.clients, on_reply=tamper))
    assert set(aggregate.faults) == {"c0"} == set(aggregate.dropped) and cohort.is_right(aggregate)


# ---- on the sparse graph


def test_on_the_sparse_graph_a_dealers_own_holders_decide() -> None:
    """Eleven of its 34 complain: 23 are left and 24 are needed, though a sum could do without twelve of all 120.

    Who has many neighbours in common with it lacks shares and signatures, too, but is not blamed.
    """
    rules = CohortRules(sparse=Sparse(0.1, 0.1, 20, 10))
    cohort = make("secagg", 120, 1, rules=rules, types={"c3": DealingBadlyToEleven})
    wire = Wire(cohort.clients)
    with pytest.raises(RoundAborted, match="24 are needed") as aborted:
        cohort.run(wire)
    faults = aborted.value.faults
    assert [name for name, fault in faults.items() if fault.startswith("blamed")] == ["c3"]
    assert faults["c3"] == "blamed: its shares do not open, say 11 of those who were dealt them"
    assert list(faults.values()).count("cannot open the shares of c3") == 11 and len(faults) == 12
    assert list(aborted.value.dropped.values()).count("exchange 2") == 11


class DealingBadlyToEleven(AggregationClient):
    """Spoils what it deals to the first eleven of its neighbours, which it knows only once it sees the key list."""

    def _deal(self, key: AgreementKey, cohort: Accepted, receiver: ClientId, pair: SharePair) -> bytes:
        dealt = super()._deal(key, cohort, receiver, pair)
        if receiver not in cohort.graph.neighbours(self._name)[:11]:
            return dealt
        return msgspec.msgpack.encode(
            msgspec.structs.replace(msgspec.msgpack.decode(dealt, type=Dealt), sealed=bytes(99))
        )


def test_who_complains_contributes_nothing_even_if_an_input_comes_too() -> None:
    """Over a wire that delivers both; with more liars than are tolerated, so that blame and a sum could both be had."""
    cohort = make("secagg", COUNT)
    liars = [f"c{i}" for i in range(COUNT - T + 1)]
    lies = saying(COUNT, {liar: complaint("c3") for liar in liars})

    class Twice(Wire):
        def __call__(self, requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
            for name, data in super().__call__(requests):
                yield name, data
                sent = [reply for (_, sender), reply in self.replies.items() if sender == name][-1]
                if sent != data:
                    yield name, sent

    with pytest.raises(RoundAborted) as aborted:
        cohort.run(Twice(cohort.clients, on_reply=lies))
    assert set(liars) <= set(aborted.value.dropped)
