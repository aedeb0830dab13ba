"""When it is whose turn, by silence."""

from __future__ import annotations

import pytest

from protocols.aggregation.messages import ConsistencyRequest, InputRequest
from protocols.wire import encode
from securefl.engines.correspondence import Deadlines
from securefl.peers.clock import Clock


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
