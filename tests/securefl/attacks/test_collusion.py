"""A server and one client together: a key opens every upload, unless masks are on it."""

from __future__ import annotations

import pytest

from securefl.attacks.collusion import cell
from securefl.attacks.settings import setting
from securefl.attacks.updates import KNOWN


@pytest.mark.attack("one key holder works with the server")
def test_one_key_opens_every_upload_unless_masks_are_on_it() -> None:
    unmasked, masked = ({f.name: f.value for f in cell(setting(kind)).figures} for kind in ("ckks-unmasked", "ckks"))
    by_key = "by its upload, with the key"
    assert unmasked[by_key] >= KNOWN and masked[by_key] < 0.05
    assert masked["victim's update known"] < KNOWN and masked["by the sum"] == pytest.approx(unmasked["by the sum"])


def test_larger_cohorts_leave_less_of_the_victim_in_the_sum() -> None:
    small, large = (cell(setting("secagg"), others) for others in (4, 9))
    assert large.figures[0].value < small.figures[0].value < KNOWN
    assert large.verdict == "green"
