from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import nct, t

from securefl.audit.bounds import gdp, mean_shift
from tests.securefl.audit.bounds.synthetic import DELTA, gaussian, least_alarms, most_alarms

SHIFT = math.sqrt(60) / 4
CLAIM = gdp.epsilon(SHIFT, DELTA)


@pytest.mark.parametrize(("shift", "canaries"), [(1.0, 12), (SHIFT, 100)])
def test_a_gaussian_is_accused_exactly_as_often_as_the_level_says(shift: float, canaries: int) -> None:
    # False-alarm rate of this test: 1e-6 over the choice of seeds, on either side.
    runs, level, truth = 500, 0.1, gdp.epsilon(shift, DELTA)
    seen = (gaussian(seed, shift, canaries) for seed in range(runs))
    alarms = sum(mean_shift.lower_bound(one.inside, one.outside, DELTA, 1 - level).epsilon > truth for one in seen)
    assert least_alarms(runs, level) <= alarms <= most_alarms(runs, level)


def test_the_bound_is_above_four_fifths_of_the_claim_for_sixty_unsampled_steps() -> None:
    seen = (gaussian(seed, SHIFT) for seed in range(40))
    found = [mean_shift.lower_bound(one.inside, one.outside, DELTA).epsilon / CLAIM for one in seen]
    assert pytest.approx(9.608, abs=1e-3) == CLAIM
    assert 0.84 < float(np.median(found)) < 0.92


def test_scale_and_origin_of_scores_do_not_matter() -> None:
    seen = gaussian(0, SHIFT)
    one = mean_shift.lower_bound(seen.inside, seen.outside, DELTA).epsilon
    other = mean_shift.lower_bound(7 + 1e-3 * seen.inside, 7 + 1e-3 * seen.outside, DELTA).epsilon
    assert one == pytest.approx(other, rel=1e-5)


def test_the_limit_solves_the_noncentral_t() -> None:
    inside, outside = np.array([3.1, 2.0, 4.2, 2.9]), np.array([0.3, -0.4, 0.8, 1.5, 0.1])
    limit = mean_shift.shift_limit(inside, outside, 0.05)
    unit = math.sqrt(1 / 4 + 1 / 5)
    pooled = math.sqrt((3 * inside.var(ddof=1) + 4 * outside.var(ddof=1)) / 7)
    student = (inside.mean() - outside.mean()) / (unit * pooled)
    assert nct.sf(student, 7, limit / unit) == pytest.approx(0.05, rel=1e-4)


def test_nothing_is_shown_where_students_t_is_not_significant() -> None:
    outside = np.array([-1.0, 0.0, 1.0])
    critical = float(t.isf(0.01, 4)) * math.sqrt(2 / 3)
    assert mean_shift.shift_limit(outside + 0.99 * critical, outside, 0.01) == 0
    assert mean_shift.shift_limit(outside + 1.01 * critical, outside, 0.01) > 0


def test_without_noise_epsilon_is_infinite() -> None:
    assert mean_shift.lower_bound(np.ones(5), np.zeros(5), DELTA).epsilon == math.inf


def test_with_hardly_any_noise_it_is_beyond_every_claim() -> None:
    seen = gaussian(0, 1e8, canaries=100)
    assert mean_shift.lower_bound(seen.inside, seen.outside, DELTA).epsilon > 700
