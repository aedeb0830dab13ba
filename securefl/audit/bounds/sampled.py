"""A bound for Poisson-sampled Gaussians (q < 1), from what the adversary sees of each canary at every step.

What is compared is those in with those out. The noise is seen in the scores of those out alone, and its scale in clips
would tell sigma more sharply; but that tests the noise and not what leaks: it would not move if canaries were clipped
to twice the clip, or never released. Here no difference between the two is no bound, whatever the noise is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtri

from securefl.audit.bounds.bound import CONFIDENCE, Bound, checked_delta, level
from securefl.audit.bounds.contrast import Contrast
from securefl.audit.bounds.families import SampledGaussians
from securefl.audit.bounds.refutation import largest_refuted
from securefl.audit.bounds.scores import Scores, checked
from securefl.errors import BadInput
from securefl.privacy.mechanism import SampledGaussian

METHOD = "sampled Gaussian"


def lower_bound(
    scores_in: ArrayLike,
    scores_out: ArrayLike,
    claimed: SampledGaussian,
    delta: float,
    confidence: float = CONFIDENCE,
) -> Bound:
    """Epsilon at ``delta``, from the scores of canaries that were in (m, T) and out (n, T) at each of T steps.

    A score is the canary's coordinate of what was released, in clips, with all that the adversary knows taken off.
    ``claimed``: T steps, their sampling rate q, and the noise that is claimed, which tunes the statistic.

    Guarantee: a lower bound with ``confidence``, whatever the noise and the length of a canary are; assumes that the
    scores of those out are noise, N(0, s^2), that those in have a constant added at steps drawn with probability q,
    independently, and that s is the same for both. ``inf`` where there is no noise. Raises ``BadInput`` on NaN, or
    where scores do not have T columns.
    """
    share, delta = level(confidence), checked_delta(delta)
    family = SampledGaussians(claimed.sampling_rate, claimed.count)
    inside, outside = _checked(scores_in, "scores in", claimed), _checked(scores_out, "scores out", claimed)
    amplitude = amplitude_limit(inside, outside, claimed, share) if inside.size and outside.size else 0.0
    epsilon = family.epsilon(amplitude, delta) if 0 < amplitude < math.inf else amplitude
    return Bound(METHOD, epsilon, delta, confidence, family.assumes, "bound", "contrast of log-likelihood ratios")


def amplitude_limit(scores_in: Scores, scores_out: Scores, claimed: SampledGaussian, share: float) -> float:
    """A lower limit on what a canary adds at its steps, in deviations of the noise; too high at most with ``share``.

    ``inf`` without noise, 0.0 where nothing is shown.
    """
    found = Evidence.of(scores_in, scores_out, claimed, share)
    if found.noises[0] == 0:
        return math.inf if found.seen > 0 else 0.0
    return largest_refuted(found.refutes, _LEAST, _MOST, _RESOLUTION)


@dataclass(frozen=True)
class Evidence:
    """What decides: the contrast that was ``seen``, and its distribution for the ``noises`` that the scores allow.

    ``share`` is split: on the chance that the noise is none of these, and on that of a contrast too large.
    """

    contrast: Contrast
    seen: float
    noises: tuple[float, ...]
    share: float

    @classmethod
    def of(cls, scores_in: Scores, scores_out: Scores, claimed: SampledGaussian, share: float) -> Evidence:
        """From scores in clips, none of them empty."""
        inside, outside = scores_in / claimed.noise_multiplier, scores_out / claimed.noise_multiplier
        contrast = Contrast(claimed.sampling_rate, 1 / claimed.noise_multiplier, inside.size, outside.size)
        least, most = _noise_limits(outside, share * _OF_NOISE)
        # The ends first, which refute least; between them the tail is within a hundredth of what they say.
        noises = (most, least, *np.linspace(least, most, 5)[1:-1])
        return cls(contrast, contrast.seen(inside, outside), noises, share * (1 - _OF_NOISE))

    def refutes(self, amplitude: float) -> bool:
        """Whether canaries add more than ``amplitude``, in deviations of the noise.

        With all noise and all draws as they are, the contrast grows with the amplitude, since the ratio grows with the
        score: what refutes one amplitude refutes all below.
        """
        return all(self.contrast.tail(self.seen, amplitude, noise) <= self.share for noise in self.noises)


# The noise is known to a percent from 30,000 scores, and the contrast hardly moves with it: a tenth will do.
_OF_NOISE = 0.1
# From a thousandth of the noise on; with a hundred times it no accountant gives an epsilon.
_LEAST, _MOST, _RESOLUTION = 1e-3, 100.0, 1e-3


def _noise_limits(scores_out: Scores, share: float) -> tuple[float, float]:
    """Limits on the noise's deviation in units of what is claimed: its squares are chi-squared, about zero."""
    squares = float((scores_out**2).sum())
    least, most = (math.sqrt(squares / chdtri(scores_out.size, tail)) for tail in (share / 2, 1 - share / 2))
    return least, most


def _checked(scores: ArrayLike, what: str, claimed: SampledGaussian) -> Scores:
    found = checked(scores, what, axes=2)
    if found.shape[1] != claimed.count:
        raise BadInput(f"{what} have {found.shape[1]} columns: there are {claimed.count} steps, give a score for each")
    return found
