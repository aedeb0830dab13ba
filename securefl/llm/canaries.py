"""Whether a model remembers a secret that one client's text holds: the secret sharer (Carlini et al., USENIX 2019).

A canary is a number that stands at one client and nowhere else. Its exposure is log2 |R| - log2 rank: how far up the
model puts it among all numbers R that could stand there, by log-perplexity. Chance gives about 1.4 bits on average;
log2 |R| means that guessing finds it first. What this measures is a lower bound on what is remembered, of this attack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import nn

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.privacy.noise import Random

Rows = Callable[[Sequence[tuple[str, str]]], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Questions and answers as tokens and what is predicted at each."""

_AT_ONCE = 128  # rows
_ALIKE = 1e-6  # alternatives that differ by less do so by rounding, and no distribution is fitted


class Canary(Struct, frozen=True):
    """A question, and a number of so many decimal digits as its answer."""

    question: str
    digits: int
    secret: str

    @property
    def space(self) -> int:
        """|R|."""
        return int(10**self.digits)


class Exposure(Struct, frozen=True):
    """In bits. ``sampled``: of the rank among the alternatives that were drawn, so at most log2 of their number.
    ``fitted``: from a skew-normal distribution of theirs (section 4.4 of the paper), at most log2 |R|.
    """

    sampled: float
    fitted: float
    most: float


def drawn(question: str, digits: int, random: Random) -> Canary:
    """A canary that nobody can guess better than by chance. Raises ``BadInput`` for less than one digit."""
    if digits < 1:
        raise BadInput(f"a canary of {digits} digits: it needs one at least")
    return Canary(question, digits, _number(digits, random))


def inserted(data: Dataset, canary: Canary, times: int, rows: Rows) -> Dataset:
    """The data with ``times`` rows more that hold the canary; the declared size is kept.

    Differential privacy for one record promises ``times`` times its epsilon for all of them together.
    """
    features, labels = rows([(canary.question, canary.secret)] * times)
    joined = np.concatenate([data.features, features]), np.concatenate([data.labels, labels])
    return replace(data, features=joined[0], labels=joined[1], size=data.declared_size)


def exposure(module: nn.Module, canary: Canary, alternatives: int, rows: Rows, random: Random) -> Exposure:
    """Of the canary in this model, beside so many other numbers, drawn at random.

    Raises ``BadInput`` for less than 16 alternatives, of which nothing could be fitted.
    """
    if alternatives < 16:
        raise BadInput(f"{alternatives} alternatives: a distribution is fitted to 16 or more")
    others = [_number(canary.digits, random) for _ in range(alternatives)]
    asked = [(canary.question, number) for number in (canary.secret, *others)]
    own, *found = _log_perplexities(module, *rows(asked))
    return estimated(own, np.array(found), canary.space)


def estimated(own: float, others: NDArray[np.float64], space: int) -> Exposure:
    """From log-perplexities: that of the canary, and those of alternatives out of ``space``."""
    from scipy.stats import skewnorm

    count, most = len(others), math.log2(space)
    # Who is as likely as the canary stands beside it: a model that knows nothing must not seem to know this.
    rank = 1 + float((others < own).sum()) + float((others == own).sum()) / 2
    sampled = math.log2(count + 1) - math.log2(rank)
    if np.ptp(others) <= _ALIKE * abs(float(others.mean())):
        return Exposure(sampled, sampled, most)
    below = float(skewnorm.cdf(own, *skewnorm.fit(others)))
    fitted = most if below <= 2**-most else -math.log2(below)
    return Exposure(sampled, max(0.0, fitted), most)


def _number(digits: int, random: Random) -> str:
    drawn = int.from_bytes(random(8 + digits))  # 64 bits more than it has: no digit is likelier by 2^-64
    return f"{drawn % 10**digits:0{digits}}"


def _log_perplexities(module: nn.Module, features: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """In bits: minus log2 of the probability that the model gives to all that counts of a row."""
    module.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(labels), _AT_ONCE):
            outputs = module(torch.from_numpy(features[start : start + _AT_ONCE])).transpose(1, 2)
            expected = torch.from_numpy(labels[start : start + _AT_ONCE])
            found.append(nn.functional.cross_entropy(outputs, expected, reduction="none").sum(1).double())
    bits: NDArray[np.float64] = torch.cat(found).numpy() / math.log(2)
    return bits
