"""When it is whose turn, by silence."""

from __future__ import annotations

import pytest

from protocols.aggregation.messages import ConsistencyRequest, InputRequest
from protocols.wire import encode
from securefl.engines.correspondence import Deadlines
from securefl.peers.clock import Clock, soon, step


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


DEADLINES = Deadlines(exchange=10.0, training=100.0)
STEP = 15.0
SHORT, LONG = encode(ConsistencyRequest(b"\1")), encode(InputRequest(b"\1", ()))


@pytest.mark.parametrize(("later", "turn"), [(0, 0), (14.9, 0), (15.0, 1), (29.9, 1), (30.0, 2), (300.0, 20)])
def test_silence_makes_it_the_next_ones_turn_and_so_on(later: float, turn: int) -> None:
    time = Time()
    clock = Clock(DEADLINES, time)
    time.now += later
    assert clock.turn(0) == turn
    assert clock.overdue(1, 0, turn) and not clock.overdue(1, 0, turn + 1)
    clock.turned()
    assert clock.turn(turn) == turn


def test_whoever_acts_has_as_long_as_its_exchange_may_take() -> None:
    time = Time()
    clock = Clock(DEADLINES, time)
    clock.heard(SHORT)
    time.now += 24.0
    assert clock.turn(0) == 0
    clock.heard(LONG)
    time.now += 110.0
    assert clock.turn(0) == 0
    time.now += 6.0
    assert clock.turn(0) == 1


@pytest.mark.attack("an acting peer that keeps its turn by asking and asking")
def test_a_turn_is_bounded_whatever_comes() -> None:
    time = Time()
    clock = Clock(DEADLINES, time)
    for _ in range(10_000):
        time.now += 1.0
        clock.heard(LONG)
    assert clock.turn(0) > 0


def test_a_turn_is_early_in_its_first_half() -> None:
    time = Time()
    clock = Clock(DEADLINES, time)
    assert clock.early
    time.now += 8.0
    assert not clock.early


def test_a_clock_that_is_behind_is_set_to_the_turn_that_others_have_reached() -> None:
    time = Time()
    clock = Clock(DEADLINES, time)
    clock.reached(40, given=0)
    assert clock.turn(0) == 40 and clock.overdue(1, 0, 40) and not clock.overdue(1, 0, 41)
    time.now += STEP
    clock.reached(40, given=0)
    assert clock.turn(0) == 41  # it is no more behind
    clock.turned()
    assert clock.turn(3) == 3


def test_what_is_heard_late_takes_no_time_away() -> None:
    time = Time()
    clock = Clock(DEADLINES, time)
    time.now += 10_000.0
    late = clock.turn(0)
    clock.heard(LONG)
    assert clock.turn(0) == late


def test_what_is_asked_before_a_turn_leaves_most_of_its_time() -> None:
    for deadlines in (DEADLINES, Deadlines(), Deadlines(exchange=2.0, training=20.0)):
        assert soon(deadlines) <= step(deadlines) / 4
