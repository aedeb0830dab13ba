"""The arithmetic of CKKS ciphertexts that needs no SEAL: parameters, products mod p, and the public ``a``.

A symmetric ciphertext in evaluation form is (c0, c1) with c0 + c1 * s = message + noise (mod p), elementwise
(Cheon et al., ASIACRYPT 2017, section 3.4). Adding ciphertexts is adding residues.

A message's coefficients hold the values themselves, not an embedding of them: for additions no slots are needed, and
without them noise is 45 times smaller. Values are whole multiples of a step, so that rounding takes all noise off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import log2

import numpy as np
from msgspec import Struct

from protocols.encoding import Layout, Upload
from protocols.encoding.quantise import FEWEST_LEVELS, noise_tail
from protocols.errors import ConfigurationError
from protocols.masking import Mask, mask_key
from protocols.primitives import digest
from protocols.ring import Ring, RingVector

DEGREE = 4096
# By their bits, the largest primes that are 1 mod 8192, so that degree 4096 has a number-theoretic transform.
PRIMES = {32: 4294828033, 40: 1099511480321, 48: 281474976694273, 54: 18014398509309953}
PRIME = PRIMES[54]
# Homomorphic Encryption Standard (Albrecht et al. 2018), table 1, ternary secret: the most bits of a modulus at 128,
# 192 and 256 bits of security.
LARGEST_MODULUS_BITS = {2048: (54, 37, 29), 4096: (109, 75, 58), 8192: (218, 152, 118)}
SECURITY_LEVELS = (128, 192, 256)
SEED_BYTES = 32
# SEAL's encryption noise is a centred binomial of 42 coins: per coefficient a deviation of sqrt(10.5), never above 21.
NOISE_DEVIATION = math.sqrt(10.5)
LARGEST_NOISE = 21
# Levels below the bound that are always enough: updates are float32 with 24 bits, and 4 more. Room beyond goes to the
# spacing, and so to what an input off the grid could lose or leak.
_ENOUGH_LEVELS = 1 << 28
# From so many bits on there is room to hold the step to 2**10 times the noise of a sum, although less is enough for
# sums of honest inputs: of one off the grid, rounding then says something about the noise with chance 2**-10 only.
_WIDE = 48
_MARGIN = 1 << 10
# Beyond these, parameters are a mistake, and floats might overflow.
_LARGEST_COUNT, _LARGEST_SIZE = 1 << 48, 2.0**100


class CKKSParameters(Struct, frozen=True):
    """Public parameters for sums of up to ``clients`` vectors of ``dimension`` reals in [-bound, bound].

    One prime of ``bits`` bits (32, 40, 48 or 54), addition only. ``noise``: standard deviation, in the update's units,
    of integer noise that whoever calls may add before encryption; all clients' together, as in ``FixedPoint``.

    A value becomes the whole number value * levels, rounded without bias, and encrypted is spacing times that.
    ``levels`` is the largest power of two, at most 2**28 below the bound, and ``spacing`` then the largest power of
    two, above twice the noise of a sum (and from 48 bits on above 2**10 times its deviation), with clients * (bound *
    levels + 1) * spacing + noise < p / 4: no sum can wrap, and of an honest sum rounding to the nearest multiple of
    the spacing gives the exact whole number, always. Parameters without such a pair, or below 128 bits of security,
    are refused.
    """

    dimension: int
    bound: float
    clients: int
    bits: int = 54
    noise: float = 0.0
    degree: int = DEGREE

    def __post_init__(self) -> None:
        counted = 1 <= self.dimension <= _LARGEST_COUNT and 1 <= self.clients <= _LARGEST_COUNT
        if not (counted and 1 / _LARGEST_SIZE <= self.bound <= _LARGEST_SIZE and 0 <= self.noise <= _LARGEST_SIZE):
            raise ConfigurationError("dimension, clients and bound must be positive and finite, noise from 0, finite")
        if self.bits not in PRIMES or self.degree != DEGREE:
            widths = ", ".join(map(str, PRIMES))
            raise ConfigurationError(f"degree {self.degree} and {self.bits} bits: CKKS has {DEGREE} and {widths}")
        security(self.degree, self.bits)
        if self.bound * self.levels < FEWEST_LEVELS:
            raise ConfigurationError(
                f"a sum of {self.clients} updates within {self.bound} leaves no useful precision in {self.bits} bits"
            )

    @property
    def prime(self) -> int:
        return PRIMES[self.bits]

    @property
    def security(self) -> int:
        """The standard's security level in bits: 128, 192 or 256."""
        return security(self.degree, self.bits)

    @property
    def levels(self) -> float:
        """Encodable values a unit; 0 if not even one fits."""
        levels = math.ldexp(1.0, math.frexp(_ENOUGH_LEVELS / self.bound)[1] - 1)
        while levels * self.bound >= FEWEST_LEVELS and self._fits(levels) < self._least_spacing:
            levels /= 2
        return levels if levels * self.bound >= FEWEST_LEVELS else 0.0

    @property
    def step(self) -> float:
        """The distance between neighbouring encodable values, in the update's units: the grid of decrypted sums."""
        return 1 / self.levels

    @property
    def largest(self) -> int:
        """The largest whole number that an honest sum can be, as a multiple of the step."""
        return math.floor(self._largest(self.levels))

    @property
    def spacing(self) -> int:
        """What a whole number is multiplied by, a power of two: noise below half of it rounds away."""
        return self._fits(self.levels)

    @property
    def scale(self) -> float:
        """The CKKS scale: encrypted is scale * value."""
        return self.spacing * self.levels

    @property
    def deviation(self) -> float:
        """Standard deviation, in the update's units, of the noise of one coordinate of a sum before it rounds away."""
        return NOISE_DEVIATION * math.sqrt(self.clients) / self.scale

    @property
    def error(self) -> float:
        """Largest standard deviation, in the update's units, of one coordinate of the mean of all clients' updates.

        Encryption adds nothing: this is what each client's rounding to the step amounts to.
        """
        return self.step / 2 / math.sqrt(self.clients)

    @property
    def ciphertexts(self) -> int:
        return -(-self.dimension // self.degree)

    @property
    def bytes_per_parameter(self) -> float:
        """Of one upload or one sum, padding included."""
        return self.ciphertexts * self.degree * self.ring.item_bytes / self.dimension

    @property
    def ring(self) -> Ring:
        return Ring(self.prime)

    @property
    def layout(self) -> Layout:
        text = (
            f"{self.dimension} {float(self.bound)!r} {self.clients} {self.degree} {self.prime} "
            f"{self.levels!r} {self.spacing} {float(self.noise)!r}"
        )
        return Layout(
            self.ring, self.ciphertexts * self.degree, self.clients, SEED_BYTES, digest("ckks", text.encode())
        )

    @property
    def _least_spacing(self) -> int:
        """The least power of two above twice the largest noise of a sum and, in wide primes, the margin."""
        margin = _MARGIN * NOISE_DEVIATION * math.sqrt(self.clients) if self.bits >= _WIDE else 0
        return 1 << max(2 * LARGEST_NOISE * self.clients, math.floor(margin)).bit_length()

    def _largest(self, levels: float) -> float:
        # The + 1 is what rounding can add to each term.
        return self.clients * (self.bound * levels + 1) + noise_tail(self.noise * levels, self.dimension)

    def _fits(self, levels: float) -> int:
        """The largest power of two that may be the spacing for so many levels; 0 if none."""
        room = (self.prime // 4 - LARGEST_NOISE * self.clients) / self._largest(levels)
        return 1 << math.floor(log2(room)) if room >= 1 else 0


def security(degree: int, bits: int) -> int:
    """The security level that the standard gives a modulus of so many bits. ``ConfigurationError`` below 128 bits."""
    largest = LARGEST_MODULUS_BITS.get(degree, ())
    levels = [level for level, most in zip(SECURITY_LEVELS, largest, strict=False) if bits <= most]
    if not levels:
        raise ConfigurationError(f"degree {degree} does not give 128-bit security with a {bits}-bit modulus")
    return levels[-1]


def narrowest(
    dimension: int, bound: float, clients: int, precision: float | None = None, noise: float = 0.0
) -> CKKSParameters:
    """The parameters with the fewest bytes whose step is at most ``precision``, in the update's units.

    Without a precision: as many levels as are ever enough, or, for very many clients, as there can be. Raises
    ``ConfigurationError`` where the step cannot be as fine as that.
    """
    wanted = bound / _ENOUGH_LEVELS if precision is None else precision
    for bits in PRIMES:
        try:
            found = CKKSParameters(dimension, bound, clients, bits, noise)
        except ConfigurationError:
            if bits == max(PRIMES):
                raise
            continue
        # The step is a power of two, so up to twice as fine as the bound has it.
        if found.step <= wanted or (precision is None and found.step < 2 * wanted):
            return found
    if precision is None:
        return found
    raise ConfigurationError(
        f"a precision of {precision:g} is finer than CKKS has for {clients} updates within {bound:g}: "
        f"ask for {1.01 * found.step:.3g} at the finest"
    )


def a_masks(parameters: CKKSParameters, uploads: Sequence[Upload]) -> list[Mask]:
    """The ``a`` of every ciphertext of each upload, as keystreams to add up: one stream an upload, drawn by rejection,
    bound to session, parameters and sender.
    """
    layout = parameters.layout
    return [
        Mask(
            mask_key(
                upload.seed,
                "ckks a",
                upload.session,
                layout.ring,
                layout.length,
                (upload.sender.encode(), layout.digest),
            ),
            1,
        )
        for upload in uploads
    ]


def multiply(left: RingVector, right: RingVector, prime: int) -> RingVector:
    """left * right mod ``prime``, elementwise, for reduced vectors and a prime below 2**54.

    The float64 quotient is off by less than 9, so the wrapped 64-bit remainder is within 9 * 2**54 < 2**63 of zero
    and its sign is right. A short ``right`` is divided once for all rows of ``left``.
    """
    quotient = (left.astype(np.float64) * (right.astype(np.float64) / prime)).astype(np.uint64)
    quotient *= np.uint64(prime)
    product: RingVector = left * right
    product -= quotient
    remainder = product.view(np.int64)
    return np.remainder(remainder, np.int64(prime), out=remainder).view(np.uint64)


def shift(c0: RingVector, c1_minus_a: RingVector, secret: RingVector, prime: int) -> RingVector:
    """c0 + (c1 - a) * s mod p: the same message and noise under another ``a``.

    **Guarantee** (assuming RLWE): safe once for each encryption. Two shifts of one encryption to different ``a``, or
    one and the original, are a linear equation for s and give it away.
    """
    vector = multiply(c1_minus_a.reshape(-1, len(secret)), secret, prime).reshape(-1)
    vector += c0
    return np.remainder(vector, np.uint64(prime), out=vector)
