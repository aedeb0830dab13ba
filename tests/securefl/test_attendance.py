"""What a client remembers of runs: attempts, plans, and that a run is over for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.errors import SessionSpent
from securefl import Store
from securefl.announcement import Announcement
from securefl.attendance import Attendance
from securefl.errors import Refused
from tests.securefl.test_plan import plan


def announced(round: int = 1, attempt: int = 1, **values: object) -> Announcement:
    return Announcement("run", round, attempt, plan(**values), b"", b"")


def test_a_run_is_closed_under_the_plan_that_it_was_joined_under_and_stays_closed(tmp_path: Path) -> None:
    found = Attendance(Store(tmp_path / "store"))
    found.require_open("run")
    found.join(announced())
    found.join(announced(2, 2, rounds=9))  # what came first stays
    with pytest.raises(Refused, match="took part in no round of run 'run' under the plan"):
        found.close("run", plan(rounds=9))
    with pytest.raises(Refused, match="took part in no round of run 'other'"):
        found.close("other", plan())
    found.require_open("run")
    found.close("run", plan())
    again = Attendance(Store(tmp_path / "store"))
    with pytest.raises(Refused, match="run run is over for this client"):
        again.require_open("run")
    again.close("run", plan())  # a statement may be asked for again


def test_an_attempt_that_is_not_later_is_refused_after_a_restart(tmp_path: Path) -> None:
    Attendance(Store(tmp_path / "store")).join(announced(2, 3))
    with pytest.raises(SessionSpent, match="is not after round 2, attempt 3"):
        Attendance(Store(tmp_path / "store")).join(announced(2, 3))
