"""When a run has learned what it will."""

from __future__ import annotations

from typing import Literal

from securefl.global_state import Measured
from securefl.job.sections import Stopping
from securefl.records import RoundRecord
from securefl.stopping import plateaued


def history(values: list[float | None], on: Literal["test", "held-out"] = "test") -> list[RoundRecord]:
    def record(number: int, value: float | None) -> RoundRecord:
        held_out = Measured(value, 0.5) if on == "held-out" and value is not None else None
        accuracy = value if on == "test" else None
        return RoundRecord(number, number, ("a",), {}, (), accuracy, {}, {}, {}, 1.0, held_out=held_out)

    return [record(number, value) for number, value in enumerate(values, start=1)]


def test_patience_counts_rounds_without_a_new_best() -> None:
    rule = Stopping(patience=2)
    assert not plateaued(history([0.5, 0.6]), rule)
    assert not plateaued(history([0.5, 0.4, 0.6]), rule)
    assert plateaued(history([0.5, 0.6, 0.6, 0.5]), rule)
    assert not plateaued(history([0.5, 0.6, 0.6, 0.61]), rule)


def test_too_little_is_nothing() -> None:
    assert plateaued(history([0.5, 0.505, 0.509]), Stopping(patience=2, by=0.01))
    assert not plateaued(history([0.5, 0.505, 0.511]), Stopping(patience=2, by=0.01))


def test_what_was_not_measured_does_not_count() -> None:
    assert not plateaued(history([0.5, None, None, 0.4]), Stopping(patience=2))
    assert not plateaued(history([None] * 9), Stopping(patience=2))


def test_the_clients_own_records_may_decide() -> None:
    values: list[float | None] = [0.7, 0.6, 0.65]
    assert plateaued(history(values, "held-out"), Stopping(patience=2, on="held-out"))
    assert not plateaued(history(values, "held-out"), Stopping(patience=2))
