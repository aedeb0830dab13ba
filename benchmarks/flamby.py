"""What FLamby's DP example on Fed-Heart-Disease measured, and which mechanism it was.

Du Terrail et al., NeurIPS 2022; github.com/owkin/FLamby, ``flamby/dp_example``: FedAvg of SGD at rate 0.001 on batches
of 4, clip 1.1, 15 rounds of 100 steps. Accuracies are published; noise multipliers are not, and are recomputed from the
published code. It calibrates for as many epochs as there are rounds, 15, which are 750, 645, 120 and 330 steps at the
four hospitals: fewer than the 1500 that it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD

DELTA, CLIP, ROUNDS, STEPS = 1e-3, 1.1, 15, 100
# An epoch's batches at each hospital, ceil(rows / 4): one over it is the sampling rate that Opacus calibrates for.
BATCHES = (50, 43, 8, 22)


@dataclass(frozen=True)
class Published:
    """One point of FLamby's curve at delta 1e-3; ``nominal`` is the epsilon that was aimed at.

    ``noise``: the noise multiplier at each hospital, by ``opacus.accountants.utils.get_noise_multiplier`` with the RDP
    accountant. Which version of Opacus ran is not recorded: RDP was the default up to 1.2, and when the example was
    published (October 2022). With the PRV accountant, default since 1.3, noise would be 5 to 10 % less, epsilon
    7 to 20 % more. ``accuracy``: as published, one for each of five seeds: the mean over the hospitals' own test rows.
    """

    nominal: float
    noise: tuple[float, ...]
    accuracy: tuple[float, ...]


PUBLISHED = (
    Published(0.1, (11.875, 12.5, 30.0, 17.5), (0.6670, 0.4839, 0.6191, 0.6788, 0.6970)),
    Published(1.0, (1.7871, 1.9043, 4.1406, 2.5781), (0.6847, 0.6348, 0.7482, 0.7125, 0.7275)),
    Published(5.0, (0.7648, 0.7910, 1.2964, 0.9375), (0.6871, 0.6375, 0.7406, 0.7313, 0.7019)),
    Published(10.0, (0.5998, 0.6152, 0.8884, 0.6982), (0.6847, 0.6324, 0.7406, 0.7310, 0.7019)),
    Published(50.0, (0.3601, 0.3651, 0.4359, 0.3895), (0.6843, 0.6403, 0.7402, 0.7286, 0.7043)),
)


def mechanisms(published: Published) -> tuple[DPSGD, ...]:
    """One round at each hospital, with Poisson sampling, as the noise was calibrated for."""
    pairs = zip(published.noise, BATCHES, strict=True)
    return tuple(DPSGD(noise, 1 / batches, STEPS, CLIP) for noise, batches in pairs)


def epsilons(published: Published) -> tuple[float, ...]:
    """Each hospital's epsilon of all rounds. Patients are at one hospital each: the federation's is the largest."""
    return tuple(accountant.epsilon([mechanism] * ROUNDS, DELTA) for mechanism in mechanisms(published))


def unamplified(published: Published) -> float:
    """What is proven of FLamby's own runs, the most of all hospitals; neighbours: a record or zeros in its place.

    Its loaders go through shuffled records, not through Poisson samples: each record is in one batch an epoch, and
    sampling amplifies nothing. The runs also drew all noise from generators seeded with the time, which is not counted.
    """
    epochs = [math.ceil(ROUNDS * STEPS / batches) for batches in BATCHES]
    pairs = zip(published.noise, epochs, strict=True)
    return max(accountant.epsilon([DPSGD(noise, 1.0, count)], DELTA) for noise, count in pairs)
