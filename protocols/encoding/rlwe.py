"""The arithmetic of CKKS ciphertexts that needs no SEAL: parameters, products mod p, and the public ``a``.

A symmetric ciphertext in evaluation form is (c0, c1) with c0 + c1 * s = message + noise (mod p), elementwise
(Cheon et al., ASIACRYPT 2017, section 3.4). Adding ciphertexts is adding residues.
"""

from __future__ import annotations

from math import log2

import numpy as np
from msgspec import Struct

from protocols.encoding import Layout, Upload
from protocols.errors import ConfigurationError
from protocols.masking import expand, mask_key
from protocols.primitives import digest
from protocols.ring import Ring, RingVector

# The largest prime below 2**54 that is 1 mod 8192, so that degree 4096 has a number-theoretic transform.
PRIME = 18014398509309953
DEGREE = 4096
# Homomorphic Encryption Standard (Albrecht et al. 2018), table 1, 128 bits, ternary secret: log2 of the modulus.
LARGEST_MODULUS_BITS = {2048: 54, 4096: 109, 8192: 218}
SEED_BYTES = 32
# Standard deviation of SEAL's encryption noise, per coefficient.
NOISE_DEVIATION = 3.2
_LARGEST_SCALE = 40


class CKKSParameters(Struct, frozen=True):
    """Public parameters for sums of up to ``clients`` vectors of ``dimension`` reals in [-bound, bound].

    One prime, addition only. The scale is the largest power of two up to 2**40 with clients * bound * scale < p / 4.
    """

    dimension: int
    bound: float
    clients: int
    degree: int = DEGREE
    prime: int = PRIME

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.clients < 1 or not 0 < self.bound < float("inf"):
            raise ConfigurationError("dimension, clients and bound must be positive and finite")
        if self.prime.bit_length() > LARGEST_MODULUS_BITS.get(self.degree, 0):
            raise ConfigurationError(
                f"degree {self.degree} does not give 128-bit security with a {self.prime.bit_length()}-bit prime"
            )
        if self.grid > self.bound / 16:
            raise ConfigurationError(
                f"a sum of {self.clients} updates within {self.bound} leaves no useful CKKS precision"
            )

    @property
    def scale(self) -> float:
        room = self.prime / 4 / (self.clients * self.bound)
        return float(2.0 ** min(_LARGEST_SCALE, int(np.ceil(log2(room))) - 1))

    @property
    def noise(self) -> float:
        """Standard deviation of one coordinate of a decrypted sum of ``clients`` vectors."""
        return float(NOISE_DEVIATION * np.sqrt(self.degree * self.clients) / self.scale)

    @property
    def grid(self) -> float:
        """The step that decrypted sums are rounded to: a power of two, at least 2**10 times their noise.

        It makes machines agree to the bit and keeps raw decryptions private (Li and Micciancio, eprint 2020/1533: a
        mitigation, not a proof).
        """
        return float(2.0 ** np.ceil(log2(self.noise) + 10))

    @property
    def ciphertexts(self) -> int:
        return -(-self.dimension // self.degree)

    @property
    def ring(self) -> Ring:
        return Ring(self.prime)

    @property
    def layout(self) -> Layout:
        text = f"{self.dimension} {self.bound!r} {self.clients} {self.degree} {self.prime} {self.scale!r}"
        return Layout(
            self.ring, self.ciphertexts * self.degree, self.clients, SEED_BYTES, digest("ckks", text.encode())
        )


def public_a(parameters: CKKSParameters, upload: Upload) -> RingVector:
    """The ``a`` of every ciphertext of one upload: one stream, drawn by rejection, bound to session and sender."""
    layout = parameters.layout
    pair = (upload.sender.encode(), layout.digest)
    return expand(
        layout.ring, mask_key(upload.seed, "ckks a", upload.session, layout.ring, layout.length, pair), layout.length
    )


def multiply(left: RingVector, right: RingVector, prime: int) -> RingVector:
    """left * right mod ``prime``, elementwise, for reduced vectors and a prime below 2**54.

    The float64 quotient is off by less than 8, so the wrapped 64-bit remainder is within 8 * 2**54 < 2**63 of zero
    and its sign is right.
    """
    quotient = (left.astype(np.float64) * right.astype(np.float64) / prime).astype(np.uint64)
    remainder = (left * right - quotient * np.uint64(prime)).view(np.int64)
    return np.remainder(remainder, np.int64(prime), out=remainder).view(np.uint64)


def shift(c0: RingVector, c1_minus_a: RingVector, secret: RingVector, prime: int) -> RingVector:
    """c0 + (c1 - a) * s mod p: the same message and noise under another ``a``.

    **Guarantee** (assuming RLWE): safe once for each encryption. Two shifts of one encryption to different ``a``, or
    one and the original, are a linear equation for s and give it away.
    """
    vector = multiply(c1_minus_a, np.tile(secret, len(c0) // len(secret)), prime)
    vector += c0
    return np.remainder(vector, np.uint64(prime), out=vector)
