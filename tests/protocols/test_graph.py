from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import ConfigurationError
from protocols.graph import CohortRules, neighbours


@pytest.mark.parametrize(
    ("cohort", "threshold"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (99, 67), (100, 67)]
)
def test_the_default_threshold_is_two_thirds_and_one(cohort: int, threshold: int) -> None:
    assert CohortRules().threshold_for(cohort) == threshold


@given(st.integers(0, 60), st.data())
def test_accepted_thresholds_hold_against_an_active_server(colluders: int, data: st.DataObject) -> None:
    """Two survivor sets of t signatures share an honest client, and no sum has fewer than two honest contributors."""
    minimum = data.draw(st.integers(max(3, 3 * colluders + 1), 200))
    cohort = data.draw(st.integers(minimum, 250))
    t = CohortRules(minimum, None, colluders).threshold_for(cohort)
    assert 2 * t - cohort > colluders
    assert 2 <= t - colluders <= cohort


@given(st.integers(3, 60), st.integers(-3, 70), st.integers(0, 25))
def test_a_chosen_threshold_is_taken_exactly_if_it_is_safe(cohort: int, threshold: int, colluders: int) -> None:
    rules_stand = 3 * colluders < cohort
    safe = threshold <= cohort and 2 * threshold > cohort + colluders and threshold - colluders >= 2
    if rules_stand and safe:
        assert CohortRules(cohort, threshold, colluders).threshold_for(cohort) == threshold
    else:
        with pytest.raises(ConfigurationError):
            CohortRules(cohort, threshold, colluders).threshold_for(cohort)


def test_a_threshold_above_the_cohort_or_too_low_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="threshold 11 is above the cohort of 10"):
        CohortRules(threshold=11).threshold_for(10)
    with pytest.raises(ConfigurationError, match="between 6 and 10"):
        CohortRules(threshold=5).threshold_for(10)


@pytest.mark.parametrize("arguments", [(2,), (0,), (3, None, 1), (9, None, 3), (3, None, -1)])
def test_rules_that_protect_nobody_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError):
        CohortRules(*arguments)


def test_a_cohort_below_the_minimum_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="below the minimum"):
        CohortRules(minimum=5).threshold_for(4)


def test_the_smallest_cohort_counts_the_threshold_too() -> None:
    assert CohortRules(minimum=3).fewest == 3
    assert CohortRules(minimum=3, threshold=7).fewest == 7
    assert CohortRules(minimum=8, threshold=7).fewest == 8


def test_on_the_complete_graph_everybody_else_is_a_neighbour() -> None:
    assert neighbours("b", ["a", "b", "c"]) == ("a", "c")


@pytest.mark.parametrize(("cohort", "roster", "tags"), [(4, 9, 5), (9, 9, 7), (5, 5, 4), (3, 5, 3)])
def test_a_model_is_settled_by_the_threshold_and_a_majority_of_the_roster(cohort: int, roster: int, tags: int) -> None:
    assert CohortRules().binding(cohort, roster) == tags
