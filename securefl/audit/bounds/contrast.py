"""The difference between two means of log-likelihood ratios, and its distribution under sampled Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from securefl.audit.bounds.scores import Scores

# The standard normal on a grid: for functions as smooth as the ratio the trapezoidal rule is exact to rounding.
_POINTS = np.linspace(-9, 9, 181)
_WEIGHTS = np.exp(-np.square(_POINTS) / 2) / np.exp(-np.square(_POINTS) / 2).sum()
# Canaries of more than five deviations are plain to see; a ratio so steep would not be smooth on that grid.
_STEEPEST = 5.0
# A value so many deviations out counts as this far out, which makes its tail larger.
_FARTHEST = 8.0
# Fourier: frequencies up to so many inverse deviations, doubled at most so often, until so little is left. It is added.
_HIGHEST = 5.5
_DOUBLINGS = 4
_LEFT = 1e-6


@dataclass(frozen=True)
class Contrast:
    """The mean ratio over ``steps_in`` scores less the mean reference over ``steps_out``.

    Scores are in deviations of the claimed noise. ``amplitude``: what a canary is claimed to add, at a fraction
    ``rate`` of its steps.
    """

    rate: float
    amplitude: float
    steps_in: int
    steps_out: int

    def ratio(self, scores: Scores) -> Scores:
        """log(1 - q + q exp(2 a x - 2 a^2)), elementwise: the ratio of a canary of twice the amplitude.

        It tells a larger amplitude from a smaller one within 1 % as sharply as any statistic, and more sharply than the
        ratio of the claimed one, which tells in from out. It grows with the score.
        """
        sampled = math.log(self.rate) + self._doubled * scores - self._doubled**2 / 2
        return np.logaddexp(math.log1p(-self.rate), sampled) if self.rate < 1 else sampled

    def reference(self, scores: Scores) -> Scores:
        """The ratio, and as much of the squares as keeps the contrast from moving with the noise where the claim holds.

        So what is not known of the noise hardly widens the distribution: the efficient score for a nuisance parameter.
        """
        return self.ratio(scores) + self._balance * scores**2

    def seen(self, scores_in: Scores, scores_out: Scores) -> float:
        """The contrast of these scores."""
        return float(self.ratio(scores_in).mean() - self.reference(scores_out).mean())

    def tail(self, seen: float, amplitude: float, noise: float) -> float:
        """How probable a contrast of ``seen`` or more is, where canaries add ``amplitude`` deviations of the noise.

        ``noise``: that deviation. By the characteristic function (Gil-Pelaez 1951), at most 2e-6 too large; 1.0, which
        refutes nothing, where it does not fall off, as for a few steps with hardly any noise.
        """
        law = _Law(
            self,
            self.ratio(noise * _POINTS),
            self.ratio(noise * (amplitude + _POINTS)),
            self.reference(noise * _POINTS),
        )
        return law.tail(seen)

    @property
    def _doubled(self) -> float:
        return 2 * min(self.amplitude, _STEEPEST)

    @cached_property
    def _balance(self) -> float:
        """Half of what the mean contrast gains with the noise, E[x g'(x)] in less out; a square gains twice itself."""

        def gained(scores: Scores) -> float:
            odds = logit(self.rate) + self._doubled * scores - self._doubled**2 / 2  # infinite where all are drawn
            return float(_WEIGHTS @ (scores * self._doubled * expit(odds)))

        return self.rate / 2 * (gained(_POINTS + self._doubled / 2) - gained(_POINTS))


@dataclass(frozen=True)
class _Law:
    """The distribution of a contrast, by what its parts are on the grid: in and not drawn, in and drawn, out."""

    contrast: Contrast
    plain: Scores
    drawn: Scores
    out: Scores

    def tail(self, seen: float) -> float:
        mean, deviation = self._moments()
        away = min((seen - mean) / deviation, _FARTHEST)
        return 1.0 if away < -_FARTHEST else self._beyond(away, mean, deviation)

    def _moments(self) -> tuple[float, float]:
        rate = self.contrast.rate
        mean, square = (
            (1 - rate) * float(_WEIGHTS @ self.plain**power) + rate * float(_WEIGHTS @ self.drawn**power)
            for power in (1, 2)
        )
        mean_out, square_out = (float(_WEIGHTS @ self.out**power) for power in (1, 2))
        variance = (square - mean**2) / self.contrast.steps_in + (square_out - mean_out**2) / self.contrast.steps_out
        return mean - mean_out, math.sqrt(variance)

    def _beyond(self, away: float, mean: float, deviation: float) -> float:
        # So fine that what lies more than twice the farthest out folds back, and nothing nearer.
        step = math.pi / (2 * _FARTHEST)
        for doubling in range(_DOUBLINGS):
            frequencies = np.arange(step / 2, _HIGHEST * 2**doubling, step)
            turned = self._characteristic(frequencies / deviation)
            if abs(turned[-1]) < _LEFT:
                centred = turned * np.exp(-1j * frequencies * (mean / deviation + away))
                return _LEFT + float(0.5 + step / math.pi * np.sum(centred.imag / frequencies))
        return 1.0

    def _characteristic(self, frequencies: Scores) -> NDArray[np.complex128]:
        rate, steps_in, steps_out = self.contrast.rate, self.contrast.steps_in, self.contrast.steps_out
        at = frequencies / steps_in
        inside = (1 - rate) * _expected(at, self.plain) + rate * _expected(at, self.drawn)
        # Rounding of 1e-16 a step is all that a power of so many steps multiplies.
        found: NDArray[np.complex128] = inside**steps_in * _expected(-frequencies / steps_out, self.out) ** steps_out
        return found


def _expected(frequencies: Scores, values: Scores) -> NDArray[np.complex128]:
    """The mean of exp(i f x). Cosine and sine apart take a tenth of the complex exponential's time."""
    angles = np.outer(frequencies, values)
    found: NDArray[np.complex128] = np.cos(angles) @ _WEIGHTS + 1j * (np.sin(angles) @ _WEIGHTS)
    return found
