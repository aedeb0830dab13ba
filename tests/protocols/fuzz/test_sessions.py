"""Whole rounds in which anything goes wrong, at any exchange, for any clients (:mod:`tests.protocols.fuzz.rounds`)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from protocols.aggregation.marks import mark, marked
from protocols.aggregation.messages import InputRequest
from protocols.aggregation.session import Step
from protocols.aggregation.states import Spent
from protocols.base import ClientId
from protocols.errors import MalformedMessage, SessionSpent
from protocols.wire import decode, encode
from tests.protocols.cohort import Wire, make, names, steps_of
from tests.protocols.fuzz.rounds import CELLS, WHATS, Rounds, Trouble

# ---- one trouble at a time, everywhere


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("cell", CELLS)
def test_one_trouble_in_any_exchange_is_one_dropout_at_most(cell: str, what: str) -> None:
    """Of five: with t = 4 they can spare one."""
    rounds = Rounds(cell, 5)
    rounds.finish()
    for place in range(len(steps_of(cell))):
        rounds.next_attempt()
        for number in range(len(steps_of(cell))):
            trouble = Trouble(what, 7 * place + rounds.attempt, 0.4)
            rounds.exchange({"c1": trouble} if number == place else {}, unasked=True)
        assert set(rounds.server.dropped) <= {"c1"} and len(rounds.server.result.contributors) >= 4


def test_a_complaint_about_anyone_names_nobody_outside_the_cohort() -> None:
    """Of three, where one complaint is enough to blame a dealer; two of those accused (bits 3 and 4) do not exist."""
    for number in range(32):
        rounds = Rounds("secagg", 3)
        rounds.exchange({})
        rounds.exchange({})
        rounds.exchange({"c0": Trouble("reply complains", number, 0.0)})
        assert "c0" in rounds.server.faults and not rounds.requests


# ---- any number of them, in any order

troubles = st.builds(Trouble, st.sampled_from(WHATS), st.integers(0, 1 << 16), st.floats(0, 1, exclude_max=True))
# Mostly few at a time: a cohort that loses more than a third of its members in all does not get far.
plans = st.one_of(*(st.dictionaries(st.integers(0, 6), troubles, max_size=size) for size in (0, 1, 1, 3)))


class Attempts(RuleBasedStateMachine):
    """Attempts one after the other, exchange by exchange."""

    @initialize(cell=st.sampled_from(CELLS), count=st.sampled_from((7, 6, 5, 4, 3)), again=st.booleans())
    def begin(self, cell: str, count: int, again: bool) -> None:
        self.rounds = Rounds(cell, count)
        if again:  # there is something to replay from the start
            self.rounds.finish()
            self.rounds.next_attempt()

    @precondition(lambda self: self.rounds.requests)
    @rule(plan=plans, unasked=st.booleans(), backwards=st.booleans())
    def exchange(self, plan: Mapping[int, Trouble], unasked: bool, backwards: bool) -> None:
        members = names(self.rounds.count)
        by_name = {members[place % len(members)]: trouble for place, trouble in plan.items()}
        self.rounds.exchange(by_name, unasked, backwards)

    @precondition(lambda self: not self.rounds.requests)
    @rule()
    def another_attempt(self) -> None:
        self.rounds.next_attempt()

    @rule(number=st.integers(0, 6), old=st.integers(0, 1 << 16))
    def a_spent_session_stays_spent(self, number: int, old: int) -> None:
        members = names(self.rounds.count)
        client = self.rounds.cohort.clients[members[number % len(members)]]
        if isinstance(client._state, Spent):
            with pytest.raises((SessionSpent, MalformedMessage)):
                client.handle(self.rounds.heard[old % len(self.rounds.heard)])
            assert isinstance(client._state, Spent)

    def teardown(self) -> None:
        if hasattr(self, "rounds"):
            self.rounds.finish()


def test_whatever_goes_wrong_a_round_ends_right_or_not_at_all() -> None:
    chosen = settings(max_examples=50, stateful_step_count=12, suppress_health_check=[HealthCheck.too_slow])
    run_state_machine_as_test(Attempts, settings=chosen)


@pytest.mark.slow
def test_whatever_goes_wrong_in_many_rounds_they_end_right_or_not_at_all() -> None:
    chosen = settings(max_examples=700, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])
    run_state_machine_as_test(Attempts, settings=chosen)


# ---- found before


def test_a_client_that_is_shown_fewer_sharers_by_the_wire_does_not_spoil_the_sum() -> None:
    """The wire takes one dealer out of a client's request, marks and shares alike: the client leaves out that mask."""
    cohort = make("secagg")
    members = names(5)

    def fewer(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (Step.INPUT, "c1"):
            return data
        request = decode(data, InputRequest)
        shared = [peer for peer in marked(members, request.shared) if peer != "c4"]
        return encode(InputRequest(mark(members, shared), request.dealt[:-1]))

    aggregate = cohort.run(Wire(cohort.clients, on_request=fewer))
    assert dict(aggregate.faults) == {"c1": "c1 answers to another key list or other sharers"}
    assert "c1" not in aggregate.contributors and cohort.is_right(aggregate)
