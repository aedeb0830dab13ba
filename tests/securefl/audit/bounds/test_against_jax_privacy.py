"""The same scores through Google's ``jax_privacy.auditing``, where it is installed (the extra ``peers`` names it)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from securefl.audit.bounds import clopper_pearson, gdp, one_run, one_run_fdp
from securefl.audit.bounds.scores import Guesses
from tests.securefl.audit.bounds.synthetic import DELTA, Seen, gaussian

auditing = pytest.importorskip("jax_privacy.auditing", reason="jax-privacy is not installed")

LEVEL = 0.01
CASES = [
    (shift, highest, seed) for shift in (0.5, math.sqrt(60) / 4, 4.0) for highest in (20, 100, 400) for seed in (0, 1)
]


def above(seen: Seen, highest: int) -> float:
    """A threshold that ``highest`` scores reach."""
    return float(np.sort(seen.scores)[-highest])


@pytest.mark.parametrize(("shift", "highest", "seed"), CASES)
def test_one_run_is_theirs_at_the_same_threshold(shift: float, highest: int, seed: int) -> None:
    seen = gaussian(seed, shift)
    ours = one_run.lower_bound(*seen, DELTA, 1 - LEVEL, (Guesses(highest, 0),)).epsilon
    strategy = auditing.Explicit(above(seen, highest))
    theirs = auditing.CanaryScoreAuditor(seen.inside, seen.outside).epsilon_one_run(
        LEVEL, DELTA, threshold_strategy=strategy
    )
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(("shift", "highest", "seed"), CASES)
def test_one_run_with_a_gaussian_trade_off_is_theirs(shift: float, highest: int, seed: int) -> None:
    seen = gaussian(seed, shift)
    ours = one_run_fdp.lower_bound(*seen, DELTA, 1 - LEVEL, guesses=(Guesses(highest, 0),)).epsilon
    strategy = auditing.Explicit(above(seen, highest))
    theirs = auditing.CanaryScoreAuditor(seen.inside, seen.outside).epsilon_one_run_fdp(
        LEVEL, DELTA, threshold_strategy=strategy
    )
    assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_gaussian_privacy_of_error_rates_is_theirs(shift: float) -> None:
    # Theirs takes the best of all thresholds at a share of the level; of scores 0 and 1 there are three.
    seen = gaussian(0, shift)
    inside, outside = ((one > 0.5).astype(float) for one in (seen.inside, seen.outside))
    theirs = auditing.CanaryScoreAuditor(inside, outside).epsilon_from_gdp(LEVEL, DELTA)
    positives = clopper_pearson.upper_limit(int(outside.sum()), len(outside), LEVEL / 6)
    negatives = clopper_pearson.upper_limit(int((inside < 1).sum()), len(inside), LEVEL / 6)
    assert gdp.epsilon(gdp.shift(positives, negatives), DELTA) == pytest.approx(theirs, abs=1e-4)
