"""What an encoding costs and how exact it is, in figures that a person can check before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters
from protocols.errors import ConfigurationError
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, Mechanism

# Rounding to a step of this part of the noise adds (1/16 / 2)**2, less than a thousandth, to the noise's variance.
_WELL_BELOW: Final = 1 / 16
_MOST_CLIENTS: Final = 1 << 30

Parameters = FixedPoint | CKKSParameters


class Facts(Struct, frozen=True):
    """One encoding of updates. ``step``: distance between encodable values; ``error``: largest standard deviation of
    a coordinate of the mean, from rounding alone, in the update's units. ``clients``: most that one sum has room for.

    ``degree``, ``security_bits`` (Homomorphic Encryption Standard 2018, ternary secret) and ``ciphertexts`` are CKKS's,
    else None.
    """

    bits: int
    bytes_per_parameter: float
    step: float
    error: float
    clients: int
    degree: int | None = None
    security_bits: int | None = None
    ciphertexts: int | None = None

    def __str__(self) -> str:
        size = f"{self.bytes_per_parameter:.4g} bytes a parameter each way"
        exact = (
            f"steps of {self.step:.2g}, which put the mean off by {1.05 * self.error:.1e} (standard deviation) at most"
        )
        room = f"at this step, room for {self.clients} clients"
        if self.degree is None:
            return f"fixed point in {self.bits} bits: {size}; {exact}; {room}"
        ring = f"degree {self.degree}, {self.bits}-bit prime, {self.security_bits}-bit security (HE standard)"
        size = f"{self.ciphertexts:,} x {self.degree} values, {size}"
        return f"CKKS of {ring}: {size}; {exact}, encryption adds nothing to it; {room}"


def facts(parameters: Parameters) -> Facts:
    """The figures of an encoding, for as many clients as its sums have."""
    step, most = parameters.step, _most_clients(parameters)
    error = step / 2 / math.sqrt(parameters.clients)
    if isinstance(parameters, FixedPoint):
        return Facts(parameters.bits, parameters.layout.ring.item_bytes, step, error, most)
    size, ring = parameters.bytes_per_parameter, (parameters.degree, parameters.security, parameters.ciphertexts)
    return Facts(parameters.bits, size, step, error, most, *ring)


def update_noise(
    mechanism: Mechanism, optimizer: LocalOptimizer, sizes: Sequence[int], weights: Sequence[float]
) -> float | None:
    """The least noise of any client's weighted update, as a standard deviation of one coordinate.

    That of the last step alone, learning rate * noise multiplier * clip / expected batch: what earlier steps left may
    have been trained away. None without noise or sizes; both sequences are in the order of the clients.
    """
    if not isinstance(mechanism, DPSGD) or not sizes:
        return None
    step = optimizer.learning_rate * mechanism.noise_multiplier * mechanism.clip / mechanism.sampling_rate
    return min(weight * step / size for size, weight in zip(sizes, weights, strict=True))


def well_below(noise: float) -> float:
    """A step whose rounding is lost in so much noise."""
    return noise * _WELL_BELOW


def _most_clients(parameters: Parameters) -> int:
    """The most clients, by halving, for which the same step is kept in as many bits: fewer always fit better."""
    fits, fails = parameters.clients, _MOST_CLIENTS
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if _keeps(lambda count: replace(parameters, clients=count), middle, parameters.step):
            fits = middle
        else:
            fails = middle
    return fits


def _keeps(build: Callable[[int], Parameters], clients: int, step: float) -> bool:
    try:
        return build(clients).step <= step
    except ConfigurationError:
        return False
