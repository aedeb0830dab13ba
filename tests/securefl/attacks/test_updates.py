"""How much of a victim's update a guess has, and that the federation's mean is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl import vector
from securefl.attacks.scene import VICTIM
from securefl.attacks.updates import HINTED, KNOWN, graded, linear, odd_one_out, recovered, true_update

TRUTH = np.array([3.0, -4.0, 0.0])


@given(st.floats(1e-3, 1e3), st.booleans())
def test_a_guess_of_another_scale_has_all_of_it(scale: float, negative: bool) -> None:
    assert recovered(TRUTH * (-scale if negative else scale), TRUTH) == pytest.approx(1)


def test_no_guess_and_one_at_right_angles_have_none_of_it() -> None:
    assert recovered(None, TRUTH) == recovered(np.zeros(3), TRUTH) == recovered(np.array([4.0, 3.0, 9.0]), TRUTH) == 0


def test_of_two_equal_parts_at_right_angles_half_is_known() -> None:
    assert recovered(np.array([1.0, 1.0]), np.array([0.0, 2.0])) == pytest.approx(0.5)


def test_verdicts_follow_the_share() -> None:
    assert [graded(share) for share in (0.0, HINTED, KNOWN, 1.0)] == ["green", "amber", "red", "red"]


def test_the_mean_of_all_updates_is_no_good_guess_at_the_victims() -> None:
    data = odd_one_out()
    start = vector.flatten(vector.build(linear, 0))
    updates = {name: true_update(linear, start, own) for name, own in data.items()}
    assert recovered(np.mean(list(updates.values()), axis=0), updates[VICTIM]) < HINTED
