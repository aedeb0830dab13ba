"""What a client signed at the end of a run stays true: the run is over for it, and was the one that it says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from protocols.errors import MalformedMessage
from securefl import closing
from securefl.announcement import Announcement
from securefl.client import Client
from securefl.errors import RoundFailed
from securefl.plan import PrivacyTerms
from tests.securefl.federation import RUN, direct, enrolled


def stated(owners: Sequence[Client]) -> int:
    roster = {owner.name: owner.public_key for owner in owners}
    return len(closing.statements(RUN, roster, direct(owners)))


def test_who_has_stated_a_run_takes_part_in_no_later_round_of_it() -> None:
    coordinator, owners = enrolled("secagg")
    coordinator.round(direct(owners))
    assert stated(owners) == 5
    with pytest.raises(RoundFailed):
        coordinator.round(direct(owners))
    assert all("has signed its statement" in owner.errors[-1] for owner in owners)
    assert stated(owners) == 5


def test_a_run_is_not_stated_under_a_plan_that_was_accepted_after_it() -> None:
    coordinator, owners = enrolled("secagg")
    coordinator.round(direct(owners))
    roster = {owner.name: owner.public_key for owner in owners}
    owners[0].pin(roster, replace(coordinator.plan, privacy=PrivacyTerms(disjoint=True)))
    assert stated(owners) == 4
    assert "under the plan that it has accepted now" in owners[0].errors[-1]


@pytest.mark.parametrize(
    ("run", "round", "attempt"),
    [
        ("evil\x1b[8m", 1, 1),
        ("a\nb", 1, 1),
        ("x" * 65, 1, 1),
        ("", 1, 1),
        ("a", -1, 1),
        ("a", 2**53, 1),
        ("a", 1, 2**60),
    ],
)
def test_names_and_numbers_that_a_ledger_or_a_person_could_not_take_are_no_announcement(
    run: str, round: int, attempt: int
) -> None:
    plan = enrolled("plain")[0].plan
    with pytest.raises(MalformedMessage):
        Announcement.decoded(Announcement(run, round, attempt, plan, b"", b"").encoded())
