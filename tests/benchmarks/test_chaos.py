"""What is stated of each fault beforehand, and that a ledger which says anything else is noticed."""

from __future__ import annotations

import signal

import pytest

from benchmarks.chaos import NAMES, SECOND, VICTIM, Case, at, cases, miscounted

UNHURT = frozenset({(1, 1), (2, 2), (3, 3)})


def case(part: str, what: signal.Signals, exchange: int, victims: int = 1) -> Case:
    (found,) = (one for one in at(exchange) if (one.part, one.signal, len(one.victims)) == (part, what, victims))
    return found


@pytest.mark.parametrize("protection", ["secagg", "ckks"])
def test_who_is_no_victim_is_charged_for_every_round_once(protection: str) -> None:
    for one in cases(protection):
        if one.attempts == 1:
            assert all(one.charged(name) == UNHURT and not one.late(name) for name in NAMES if name not in one.victims)
        assert one.seconds < one.limit < one.seconds + 120


def test_a_victim_is_charged_for_what_it_contributed_to() -> None:
    lost = case("client", signal.SIGKILL, 1)
    assert lost.charged(VICTIM) == {(1, 1), (3, 3)} and lost.late(VICTIM) == frozenset()
    assert case("client", signal.SIGKILL, 3).charged(VICTIM) == UNHURT
    for how in (signal.SIGSTOP, signal.SIGKILL):  # as it is asked for its input: before or after it was charged
        asked = case("client", how, 2)
        assert asked.charged(VICTIM) == {(1, 1), (3, 3)} and asked.late(VICTIM) == {(2, 2)}


def test_an_abandoned_attempt_stays_charged_where_training_had_begun() -> None:
    again = {(1, 1), (2, 3), (3, 4)}
    twice = again | {(2, 2)}
    for exchange, victim, other in ((1, again, again), (2, again, twice), (3, twice, twice), (4, twice, twice)):
        one = case("client", signal.SIGKILL, exchange, victims=2)
        assert one.charged(SECOND) == victim and one.charged(NAMES[0]) == other


@pytest.mark.parametrize(
    ("charged", "right"),
    [
        ([(1, 1), (2, 2), (3, 3)], True),
        ([(1, 1), (3, 3)], False),
        ([(1, 1), (2, 2), (2, 3), (3, 3)], False),
        ([(1, 1), (1, 1), (2, 2), (3, 3)], False),
    ],
)
def test_a_ledger_that_counts_too_little_or_too_much_is_noticed(charged: list[tuple[int, int]], right: bool) -> None:
    assert (list(miscounted("a", charged, UNHURT, frozenset())) == []) == right


def test_what_came_late_may_be_in_a_ledger_or_not() -> None:
    for charged in ([(1, 1), (3, 3)], [(1, 1), (2, 2), (3, 3)]):
        assert not list(miscounted("a", charged, frozenset({(1, 1), (3, 3)}), frozenset({(2, 2)})))
