from __future__ import annotations

import math

import numpy as np
import pytest

from securefl.audit.bounds import gdp, one_shot
from tests.securefl.audit.bounds.synthetic import DELTA, gaussian


def fitted(mean: float, deviation: float) -> np.ndarray:
    """A few scores of exactly this mean and sample deviation."""
    values = np.array([-1.0, 0.0, 1.0])
    return mean + deviation * values


@pytest.mark.parametrize("shift", [0.1, 1.0, math.sqrt(60) / 4, 8.0])
def test_with_equal_deviations_it_is_the_epsilon_of_gaussian_privacy(shift: float) -> None:
    estimate = one_shot.estimate(fitted(5 + 2 * shift, 2), fitted(5, 2), DELTA)
    assert estimate.epsilon == pytest.approx(gdp.epsilon(shift, DELTA), rel=1e-4)


def test_with_other_deviations_it_is_the_worse_of_both_ways_round() -> None:
    one, other = fitted(1, 1), fitted(0, 2)
    assert one_shot.estimate(one, other, DELTA).epsilon == pytest.approx(one_shot.estimate(other, one, DELTA).epsilon)
    # N(0, 4) against N(0, 1): what the wide one puts beyond x, where the narrow one puts next to nothing.
    wide, narrow = fitted(0, 2), fitted(0, 1)
    epsilon = one_shot.estimate(wide, narrow, DELTA).epsilon
    points = np.linspace(-30, 30, 600_001)
    densities = [np.exp(-((points / s) ** 2) / 2) / s / math.sqrt(2 * math.pi) for s in (2, 1)]
    excess = np.clip(densities[0] - math.exp(epsilon) * densities[1], 0, None).sum() * (points[1] - points[0])
    assert excess == pytest.approx(DELTA, rel=1e-3)


def test_it_is_near_the_truth_and_says_that_it_is_an_estimate() -> None:
    shift = math.sqrt(60) / 4
    found = [one_shot.estimate(one.inside, one.outside, DELTA) for one in (gaussian(seed, shift) for seed in range(20))]
    # The truth is 9.61; deviations are fitted, and where they differ by chance the worse way round counts.
    assert 9.5 < float(np.median([one.epsilon for one in found])) < 11.5
    assert found[0].kind == "estimate" and found[0].confidence is None
    assert "an estimate" in str(found[0])
    assert not found[0].refutes(1.0)


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [([], [1.0, 2.0], 0), ([1.0], [0.0, 1.0], 0), ([1.0, 1.0], [1.0, 1.0], 0), ([1.0, 1.0], [0.0, 0.0], math.inf)],
)
def test_what_cannot_be_fitted_gives_nothing_and_what_does_not_vary_everything(
    inside: list[float], outside: list[float], expected: float
) -> None:
    assert one_shot.estimate(inside, outside, DELTA).epsilon == expected
