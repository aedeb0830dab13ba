"""The strongest of ever stronger hypotheses that is still refuted."""

from __future__ import annotations

import math
from collections.abc import Callable


def largest_refuted(refuted: Callable[[float], bool], least: float, most: float, resolution: float) -> float:
    """The largest strength in ``least``..``most``, to a factor of 1 + ``resolution``, that ``refuted`` rejects.

    0.0 if it does not reject ``least``. ``refuted`` must be true up to some strength and false from there on; what is
    returned was rejected itself, so that rounding only lowers a bound.
    """
    if not refuted(least):
        return 0.0
    if refuted(most):
        return most
    low, high = least, most
    while high > low * (1 + resolution):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
