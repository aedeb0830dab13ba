from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.privacy.search import CHOICES, LEAST_NOISE, MOST_NOISE, four_digits, largest, largest_within


@given(answer=st.integers(0, 1000), start=st.integers(1, 1000))
def test_the_largest_that_fits_is_found_from_anywhere(answer: int, start: int) -> None:
    assert largest(lambda n: n <= answer, start, 0, 1001) == answer


@given(
    power=st.floats(0.1, 3),
    limit=st.floats(1e-3, 1e8),
    end=st.integers(1, 20_000),
    off=st.floats(0.2, 5),
    start=st.floats(0, 9),
)
def test_a_rough_figure_changes_the_effort_and_not_the_answer(
    power: float, limit: float, end: int, off: float, start: float
) -> None:
    def cost(n: int) -> float:
        return float(start + n**power)

    answer = largest_within(limit, end, lambda n: off * n ** (1.2 * power), [cost, cost])
    assert answer == sum(cost(n) <= limit for n in range(1, end + 1))


def test_a_proportional_rough_figure_leads_straight_to_the_answer() -> None:
    asked: list[int] = []

    def cost(n: int) -> float:
        asked.append(n)
        return math.sqrt(n)

    assert largest_within(100.5, 10**6, lambda n: 1.3 * math.sqrt(n), [math.sqrt, cost]) == 10_100
    assert set(asked) == {10_100, 10_101}


@pytest.mark.parametrize("constant", [0.0, math.inf])
def test_costs_without_a_ratio_are_searched_all_the_same(constant: float) -> None:
    assert largest_within(1, 100, lambda n: constant, [lambda n: constant]) == (0 if constant else 100)


def test_noise_multipliers_of_four_digits_fall_from_the_most_to_the_least() -> None:
    numbers = [four_digits(choice) for choice in range(1, CHOICES + 1)]
    assert (numbers[0], numbers[-1]) == (MOST_NOISE, LEAST_NOISE)
    assert all(before > after for before, after in pairwise(numbers))
    assert all(number == float(f"{number:.4g}") for number in numbers)
