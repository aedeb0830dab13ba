"""A client's side of client-level privacy: its whole vector within the clip, and its share of the noise in the ring.

Source: Agarwal, Kairouz and Liu, NeurIPS 2021, algorithm 1, without rotation: the clip bounds each coordinate, and sums
have room for all of it, so that nothing wraps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.privacy.mechanism import Skellam
from securefl.privacy.noise import Random, skellam

# Norm and division are float64: the norm of so many coordinates is off by less than 2**-30 of itself.
_MARGIN: Final = 1 - 2.0**-30


def clipped(update: NDArray[np.float32], clip: float) -> tuple[NDArray[np.float64], bool]:
    """The update in clips, cut off at L2 norm 1, and whether it was within the clip.

    What is not finite counts as zero: there must be no update that stops a client from taking part.
    """
    wide = np.nan_to_num(update.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    norm = math.sqrt(float(np.dot(wide, wide)))
    if norm > 0:  # zeros stay zeros, whatever the clip: an error here would tell that they are
        wide *= _MARGIN / max(norm, clip)
    return wide, norm <= clip


def noise_share(sums: Iterable[Skellam], random: Random = os.urandom) -> NDArray[np.int64]:
    """One client's noise on all coordinates of its vector, in whole steps, in the order of ``sums``.

    Guarantee: that of :class:`Skellam`, if all ``honest`` clients draw theirs from unpredictable ``random``.
    """
    return np.concatenate([skellam(each.dimension, each.variance / each.honest, random) for each in sums])
