from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, norm

from securefl.audit.bounds import sampled
from securefl.audit.bounds.contrast import Contrast
from securefl.audit.bounds.families import SampledGaussians
from securefl.audit.bounds.sampled import Evidence
from securefl.errors import BadInput
from securefl.privacy.mechanism import SampledGaussian
from tests.securefl.audit.bounds import synthetic
from tests.securefl.audit.bounds.synthetic import DELTA, most_alarms

CLAIMED = SampledGaussian(1.0, 0.1, 60)
CLAIM = 5.5727


@pytest.mark.parametrize(
    ("canaries", "steps", "rate", "noise"),
    [(40, 10, 0.1, 1.0), (40, 10, 0.1, 0.5), (10, 60, 0.3, 2.0), (200, 1, 1.0, 1.0)],
)
def test_the_mechanism_is_accused_no_more_often_than_the_level_says(
    canaries: int, steps: int, rate: float, noise: float
) -> None:
    # Whatever noise was claimed. False-alarm rate of this test: 1e-6 over the choice of seeds, each time.
    runs, level, claimed = 200, 0.1, SampledGaussian(1.0, rate, steps)
    seen = (synthetic.sampled(seed, noise, rate, canaries, steps) for seed in range(runs))
    alarms = sum(Evidence.of(one.inside, one.outside, claimed, level).refutes(1 / noise) for one in seen)
    assert alarms <= most_alarms(runs, level)


def test_the_level_is_nearly_used_up() -> None:
    # All but a tenth is for the contrast, and what is not known of the noise costs some. 1e-4 over the seeds, if it is
    # used up by half.
    runs, level = 200, 0.2
    seen = (synthetic.sampled(seed, 1.0, 0.1, 200, 30) for seed in range(runs))
    claimed = SampledGaussian(1.0, 0.1, 30)
    alarms = sum(Evidence.of(one.inside, one.outside, claimed, level).refutes(1.0) for one in seen)
    assert alarms > 5


def test_the_bound_is_above_seven_tenths_of_the_claim_for_sixty_sampled_steps() -> None:
    seen = (synthetic.sampled(seed, 1.0, 0.1) for seed in range(9))
    limits = [sampled.amplitude_limit(one.inside, one.outside, CLAIMED, 0.01) for one in seen]
    # The truth is 1, and the spread of one run 0.05; from 0.84 on the bound is above 0.72 of the claim.
    assert 0.84 < float(np.median(limits)) < 0.93
    assert SampledGaussians(0.1, 60).epsilon(0.84, DELTA) > 0.72 * CLAIM


def test_without_sampling_the_bound_is_above_four_fifths_of_the_claim() -> None:
    one = synthetic.sampled(0, 4.0, 1.0)
    found = sampled.lower_bound(one.inside, one.outside, SampledGaussian(4.0, 1.0, 60), DELTA)
    assert 0.8 < found.epsilon / 9.608 < 1


def test_the_noise_and_the_contrast_share_the_level() -> None:
    one = synthetic.sampled(0, 1.0, 0.1, 40, 60)
    found = Evidence.of(one.inside, one.outside, CLAIMED, 0.1)
    assert found.share == pytest.approx(0.09)
    squares = np.square(one.outside).sum()
    limits = [math.sqrt(squares / chi2.ppf(tail, one.outside.size)) for tail in (0.005, 0.995)]
    assert (max(found.noises), min(found.noises)) == pytest.approx(tuple(limits), rel=1e-9)


def test_the_worst_of_many_runs_is_still_above_half_of_the_claim() -> None:
    one = synthetic.sampled(2, 1.0, 0.1)  # of the seeds 0 to 39
    assert 0.5 < sampled.lower_bound(one.inside, one.outside, CLAIMED, DELTA).epsilon / CLAIM < 1


def test_twice_the_clip_and_half_the_noise_are_both_seen() -> None:
    half = synthetic.sampled(0, 0.5, 0.1)
    for scale in (1.0, 2.0):  # half the noise, or twice the clip with all of it
        limit = sampled.amplitude_limit(scale * half.inside, scale * half.outside, CLAIMED, 0.001)
        assert 1.8 < limit < 2.0


def test_noise_that_is_smaller_than_claimed_is_no_leak_by_itself() -> None:
    rng = np.random.default_rng(0)
    inside, outside = (0.3 * rng.standard_normal((500, 60)) for _ in range(2))
    assert sampled.lower_bound(inside, outside, CLAIMED, DELTA).epsilon < 0.1


def test_a_larger_amplitude_is_refuted_only_if_all_below_are() -> None:
    one = synthetic.sampled(1, 1.0, 0.1, 100)
    found = Evidence.of(one.inside, one.outside, CLAIMED, 0.01)
    refuted = [found.refutes(amplitude) for amplitude in np.geomspace(0.01, 50, 60)]
    assert refuted == sorted(refuted, reverse=True)
    assert refuted[0] and not refuted[-1]


@pytest.mark.parametrize(("canaries", "steps"), [(10, 10), (1000, 60)])
def test_no_noise_between_those_tried_has_a_larger_tail(canaries: int, steps: int) -> None:
    one = synthetic.sampled(1, 1.0, 0.1, canaries, steps)
    found = Evidence.of(one.inside, one.outside, SampledGaussian(1.0, 0.1, steps), 0.01)
    for amplitude in (0.5, 0.9):
        tried = [found.contrast.tail(found.seen, amplitude, noise) for noise in found.noises]
        between = np.linspace(min(found.noises), max(found.noises), 33)
        assert max(found.contrast.tail(found.seen, amplitude, noise) for noise in between) < 1.01 * max(tried) + 2e-6


@pytest.mark.parametrize(("amplitude", "noise"), [(0.0, 1.0), (1.0, 1.0), (0.7, 1.02), (3.0, 0.4)])
def test_the_tail_is_that_of_simulated_contrasts(amplitude: float, noise: float) -> None:
    rng = np.random.default_rng(5)
    contrast = Contrast(0.1, 1.0, 600, 400)
    drawn = rng.random((4000, 600)) < 0.1
    inside = noise * (amplitude * drawn + rng.standard_normal((4000, 600)))
    outside = noise * rng.standard_normal((4000, 400))
    found = contrast.ratio(inside).mean(axis=1) - contrast.reference(outside).mean(axis=1)
    for quantile in (0.5, 0.9, 0.99):
        seen = float(np.quantile(found, quantile))
        # Five deviations of the simulated share: a false-alarm rate of 6e-7 each.
        allowed = 5 * math.sqrt(quantile * (1 - quantile) / 4000) + 3e-4
        assert contrast.tail(seen, amplitude, noise) == pytest.approx(1 - quantile, abs=allowed)


@pytest.mark.parametrize("away", [-3.0, 0.0, 2.326, 4.0])
def test_without_sampling_and_with_endless_canaries_out_the_contrast_is_gaussian(away: float) -> None:
    contrast = Contrast(1.0, 0.5, 300, 10**9)
    # The ratio is linear there, with slope 2 a = 1; the squares of those out have the mean 1.21, times a^2.
    mean, deviation = 0.4 * 1.1 - 0.25 * 1.21, 1.1 / math.sqrt(300)
    tail = contrast.tail(mean + away * deviation, 0.4, 1.1)
    assert tail == pytest.approx(norm.sf(away), abs=1e-5)


def test_a_few_steps_with_hardly_any_noise_refute_nothing() -> None:
    assert Contrast(0.1, 1.0, 5, 5).tail(0.01, 1e3, 1e-3) == 1.0


def test_without_noise_epsilon_is_infinite_and_without_a_canary_nothing_is_shown() -> None:
    inside, outside = np.zeros((20, 60)), np.zeros((20, 60))
    assert sampled.lower_bound(inside, outside, CLAIMED, DELTA).epsilon == 0
    inside[:, ::10] = 1
    assert sampled.lower_bound(inside, outside, CLAIMED, DELTA).epsilon == math.inf


def test_scores_of_another_number_of_steps_are_refused() -> None:
    with pytest.raises(BadInput, match="59 columns: there are 60 steps"):
        sampled.lower_bound(np.zeros((3, 59)), np.zeros((3, 60)), CLAIMED, DELTA)
