"""Attacks with inputs that come late, or are said to: the pairwise masks are off already, or the sum is fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Envelope, SharePair
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Step
from protocols.aggregation.states import Sharing
from protocols.aggregation.summing import Consistency
from protocols.base import ClientId, Messages, Replies, drive
from protocols.errors import SessionSpent
from protocols.masking import Mask
from protocols.wire import decode, kind
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of, without
from tests.protocols.cohort import Wire, names

EVERYBODY, OTHERS = names(5), without(VICTIM)


class MasksOnce(AggregationClient):
    """Adds pairwise masks only: enough, it seems, as long as everybody is there in time."""

    def _masks(self, state: Sharing, held: Mapping[ClientId, SharePair]) -> list[Mask]:
        return super()._masks(state, held)[1:]


def call_the_late_dropped(server: Adversary) -> None:
    """The victim's input comes after its mask key was rebuilt, or so the server says: it had it all the time."""
    server.up_to_inputs()
    server.sign(OTHERS)
    server.open(OTHERS)


@pytest.mark.attack("a late masked input")
def test_an_input_that_comes_late_is_hidden_by_the_self_mask() -> None:
    weak, real = Adversary(cohort_of(MasksOnce)), Adversary(cohort_of(AggregationClient))
    call_the_late_dropped(weak)
    assert weak.reads(VICTIM)
    call_the_late_dropped(real)
    assert real.mask_key(VICTIM) and not real.reads(VICTIM)  # the pairwise masks are off, as in the weak half
    with pytest.raises(SessionSpent):
        real.open(OTHERS)


class Delays(Wire):
    """Holds one client's input back until the survivor set is fixed."""

    def __call__(self, requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
        step = Step(kind(next(iter(requests.values()))) - 1)
        for name, data in super().__call__(requests):
            if (step, name) != (Step.INPUT, VICTIM):
                yield name, data
        if step == Step.CONSISTENCY:
            yield VICTIM, self.replies[Step.INPUT, VICTIM]


class AddsLateInputs(AggregationServer):
    """Adds up every vector that comes, as long as it is open."""

    def advance(self, replies: Replies) -> Messages:
        stage, in_time = self._stage, []
        for name, data in replies:
            reply = decode(data, Envelope)
            if isinstance(stage, Consistency) and reply.signed.says(Step.INPUT):
                layout = stage._received.cohort.terms.layout
                stage._received.sum.add(layout.ring.unpack(reply.parts[0], layout.length))
            else:
                in_time.append((name, data))
        return super().advance(in_time)


@pytest.mark.attack("a late input added to a sum whose contributors are fixed")
def test_a_late_input_is_no_part_of_the_sum() -> None:
    cohort = cohort_of(AggregationClient)
    spoiled = drive(AddsLateInputs(cohort.terms, dict.fromkeys(EVERYBODY, b"")), Delays(cohort.clients))
    assert spoiled.contributors == OTHERS and not cohort.is_right(spoiled)
    cohort = cohort_of(AggregationClient)
    aggregate = drive(cohort.server(), Delays(cohort.clients))
    assert aggregate.contributors == OTHERS and cohort.is_right(aggregate)
    assert "not asked for" in aggregate.faults[VICTIM]
