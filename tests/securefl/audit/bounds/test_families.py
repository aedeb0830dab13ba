from __future__ import annotations

import numpy as np
import pytest

from securefl.audit.bounds.families import Family, Gaussians, SampledGaussians
from securefl.audit.bounds.refutation import largest_refuted
from securefl.errors import BadInput

RATES = np.linspace(0, 1, 101)


@pytest.mark.parametrize("family", [Gaussians(), SampledGaussians(0.1, 60), SampledGaussians(1.0, 3)])
def test_trade_off_functions_are_convex_symmetric_and_lower_the_stronger(family: Family) -> None:
    before = 1 - RATES
    for strength in (0.1, 0.5, 1.0):
        curve = family.tradeoff(strength)
        values = np.array([curve(rate) for rate in RATES])
        assert (values <= before + 1e-12).all()
        assert (np.diff(values, 2) >= -1e-12).all()
        assert all(curve(curve(rate)) <= rate + 1e-3 for rate in RATES)
        before = values


def test_a_family_that_is_not_sampled_lies_just_below_the_gaussians() -> None:
    sampled, gaussian = SampledGaussians(1.0, 4).tradeoff(0.5), Gaussians().tradeoff(1.0)
    for rate in RATES:
        assert gaussian(rate) - 0.01 < sampled(rate) <= gaussian(rate) + 1e-12


@pytest.mark.parametrize(("rate", "steps"), [(0.0, 1), (1.1, 1), (0.5, 0)])
def test_a_family_that_cannot_be_sampled_is_refused(rate: float, steps: int) -> None:
    with pytest.raises(BadInput, match="rate"):
        SampledGaussians(rate, steps)


@pytest.mark.parametrize("truth", [0.1, 0.123, 1.0, 7.7, 10.0])
def test_the_largest_refuted_strength_is_found_from_below(truth: float) -> None:
    found = largest_refuted(lambda strength: strength <= truth, 0.1, 10.0, 1e-3)
    assert truth / 1.001 <= found <= truth


def test_no_strength_is_found_where_none_is_refuted() -> None:
    assert largest_refuted(lambda strength: False, 0.1, 10.0, 1e-3) == 0
