"""Attacks with shares that are not those that were dealt, when secrets are rebuilt: a wrong sum that looks right."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Envelope, Opened, UnmaskRequest
from protocols.aggregation.secrets import self_mask_key
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Step
from protocols.aggregation.stage import Sum
from protocols.aggregation.states import Consenting, State
from protocols.aggregation.summing import Unmask
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages, Replies, drive
from protocols.errors import RoundAborted
from protocols.masking import Mask, apply_masks
from tests.protocols.attacks.adversary import cohort_of
from tests.protocols.cohort import Cohort, Wire, names

LIAR = "c0"


class Interpolates(Unmask):
    """Rebuilds seeds from whatever shares come, reduced as needed, and asks nobody whether they are right."""

    def _check(self, holder: ClientId, dealer: ClientId, share: bytes) -> None:
        pass

    def finish(self) -> Sum:
        received, terms = self._received, self._received.cohort.terms
        total = received.sum.finish()
        for dealer in received.survivors:
            held = {terms.roster.points[holder]: share for holder, share in self._shares[dealer].items()}
            lagrange = shamir.coefficients(held)
            value = sum(lagrange[x] * int.from_bytes(share, "big") for x, share in held.items()) % shamir.PRIME
            seed = (value % (1 << 256)).to_bytes(32, "big")
            apply_masks(total, terms.layout.ring, [Mask(self_mask_key(terms, dealer, seed), -1)])
        return received.summed(self._consents)


class Trusting(AggregationServer):
    """The real server up to the last exchange."""

    stage: type[Unmask] = Interpolates

    def advance(self, replies: Replies) -> Messages:
        requests = super().advance(replies)
        if type(self._stage) is Unmask:
            self._stage = self.stage(self._stage._received, self._stage._consents, self._stage.asked)
        return requests


def aggregated(server: type[AggregationServer], cohort: Cohort, wire: Wire | None = None) -> Aggregate:
    return drive(server(cohort.terms, dict.fromkeys(cohort.clients, b"")), wire or Wire(cohort.clients))


# ---- by who opens them


class Lies(AggregationClient):
    """Opens something else than it was dealt."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        spent, honest = super()._unmask(state, request)
        body = Opened(self._bent(read(honest.parts, Opened).shares))
        return spent, self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(body)])

    def _bent(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        raise NotImplementedError


class Forges(Lies):
    def _bent(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        forged = (int.from_bytes(shares[1], "big") + 1) % shamir.PRIME
        return (shares[0], forged.to_bytes(33, "big"), *shares[2:])


class Swaps(Lies):
    def _bent(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (shares[0], shares[2], shares[1], *shares[3:])


class LeavesField(Lies):
    def _bent(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (shares[0], b"\xff" * 33, *shares[2:])


@pytest.mark.parametrize(
    "dishonest",
    [
        pytest.param(Forges, marks=pytest.mark.attack("a forged share")),
        pytest.param(Swaps, marks=pytest.mark.attack("the shares of two dealers swapped")),
        pytest.param(LeavesField, marks=pytest.mark.attack("a share outside the field")),
    ],
)
def test_a_share_that_was_not_dealt_is_its_senders_fault(dishonest: type[Lies]) -> None:
    cohort = cohort_of(AggregationClient, others={LIAR: dishonest})
    spoiled = aggregated(Trusting, cohort)
    assert spoiled.contributors == names(5) and not spoiled.faults and not cohort.is_right(spoiled)
    cohort = cohort_of(AggregationClient, others={LIAR: dishonest})
    aggregate = aggregated(AggregationServer, cohort)
    assert cohort.is_right(aggregate) and set(aggregate.faults) == {LIAR}
    assert "a share of c1 that is not the one dealt" in aggregate.faults[LIAR]


class LeavesFieldAtHome(Lies):
    """Of its own dealing, where nobody committed to the share that it kept."""

    def _bent(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (b"\xff" * 33, *shares[1:])


@pytest.mark.attack("a share of its own dealing outside the field")
def test_a_wrong_share_of_ones_own_dealing_ends_the_attempt_and_names_its_dealer() -> None:
    cohort = cohort_of(AggregationClient, others={LIAR: LeavesFieldAtHome})
    assert not cohort.is_right(aggregated(Trusting, cohort))
    cohort = cohort_of(AggregationClient, others={LIAR: LeavesFieldAtHome})
    with pytest.raises(RoundAborted) as caught:
        aggregated(AggregationServer, cohort)
    assert {name for name, why in caught.value.faults.items() if why.startswith("blamed: ")} == {LIAR}


class CountsReplies(Interpolates):
    """Counts answers, not those who gave them."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self._count = 0

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(f"reply {number}" for number in range(self._count))

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        super().fold(sender, reply)
        self._count += 1


class TrustingCount(Trusting):
    stage = CountsReplies


class Repeats(Wire):
    """Two of five stay silent in the end, and one of the others answers twice."""

    def __call__(self, requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
        for name, data in super().__call__(requests):
            yield name, data
            if name == LIAR and (Step.UNMASK, LIAR) in self.replies:
                yield name, data


def with_an_echo(server: type[AggregationServer]) -> tuple[Cohort, Aggregate]:
    cohort = cohort_of(AggregationClient)
    silent = dict.fromkeys(("c3", "c4"), int(Step.UNMASK))
    return cohort, aggregated(server, cohort, Repeats(cohort.clients, silent))


@pytest.mark.attack("a share opened twice")
def test_a_share_that_comes_twice_counts_once() -> None:
    cohort, spoiled = with_an_echo(TrustingCount)
    assert spoiled.contributors == names(5) and not cohort.is_right(spoiled)
    with pytest.raises(RoundAborted, match="3 clients are left after exchange 4, 4 are needed"):
        with_an_echo(AggregationServer)
