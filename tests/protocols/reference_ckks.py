"""A second implementation of docs/ckks.md, naive and slow, written from that page alone: no import of the first one.

Like reference.py, which it builds on, it computes and hardly checks: what it shows is that the document says enough.
SEAL's draws (key and noise) are inputs here. Section numbers are the document's.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import floor

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.protocols.reference import agree, derive, digest, elements, in_order, plus, public_key, seal
from tests.vectors.messagepack import pack, unpack

# ---- section 1

N = 4096
PRIMES = {32: 4294828033, 40: 1099511480321, 48: 281474976694273, 54: 18014398509309953}


@dataclass(frozen=True)
class Parameters:
    """For sums of up to so many vectors of reals in [-bound, bound], without noise of the application's."""

    clients: int
    bits: int
    bound: float
    levels: Fraction
    spacing: int

    @property
    def prime(self) -> int:
        return PRIMES[self.bits]

    @property
    def largest(self) -> Fraction:
        """What no sum of whole numbers exceeds."""
        return self.clients * (Fraction(self.bound) * self.levels + 1)


def parameters(clients: int, bits: int, bound: float) -> Parameters | None:
    """None where they are refused."""
    levels = power_of_two(Fraction(2**28) / Fraction(bound))
    while Fraction(bound) * levels >= 256:
        reach = clients * (Fraction(bound) * levels + 1)
        spacing = power_of_two((PRIMES[bits] // 4 - 21 * clients) / reach)
        if spacing > 42 * clients and (bits < 48 or spacing**2 > 2**20 * Fraction(21, 2) * clients):
            return Parameters(clients, bits, bound, levels, int(spacing))
        levels /= 2
    return None


def power_of_two(limit: Fraction) -> Fraction:
    """The largest that is not above."""
    power = Fraction(1)
    while power > limit:
        power /= 2
    while 2 * power <= limit:
        power *= 2
    return power


def whole_numbers(update: Sequence[float], weight: float, bound: float, levels: float, key: bytes) -> list[int]:
    coins = elements(key, 1 << 32, len(update))
    clipped = [min(max(x, -bound), bound) for x in update]
    return [floor(x * weight * levels + coin * 2.0**-32) for x, coin in zip(clipped, coins, strict=True)]


def layout_digest(dimension: int, made: Parameters) -> bytes:
    numbers = (dimension, made.bound, made.clients, N, made.prime, float(made.levels), made.spacing, 0.0)
    return digest("ckks", " ".join(map(repr, numbers)).encode())


def length(dimension: int) -> int:
    return -(-dimension // N) * N


# ---- section 2


@cache
def root(prime: int) -> int:
    """The least primitive 2N-th root of unity: of one and its odd powers, which are all of them."""
    one = next(g for g in (pow(x, (prime - 1) // (2 * N), prime) for x in range(2, 1000)) if pow(g, N, prime) != 1)
    return min(pow(one, odd, prime) for odd in range(1, 2 * N, 2))


def places() -> list[int]:
    """r(i) for every place i: its 12 bits from behind."""
    return [int(f"{i:012b}"[::-1], 2) for i in range(N)]


def value_at(polynomial: Sequence[int], place: int, prime: int) -> int:
    """By Horner's rule: the definition, to hold the transforms against."""
    x, value = pow(root(prime), 2 * places()[place] + 1, prime), 0
    for coefficient in reversed(polynomial):
        value = (value * x + coefficient) % prime
    return value


def values(polynomial: Sequence[int], prime: int) -> list[int]:
    """At all places of one ciphertext."""
    ordered = _evaluated(polynomial, root(prime), prime)
    return [ordered[r] for r in places()]


def coefficients(vector: Sequence[int], prime: int) -> list[int]:
    """The polynomial with these values at all places, its coefficients in 0..p-1."""
    return _interpolated([vector[r] for r in places()], root(prime), prime)


def _evaluated(polynomial: Sequence[int], g: int, prime: int) -> list[int]:
    """At g, g^3, g^5, ...: f(x) = even(x^2) + x odd(x^2), and x^2 runs through the odd powers of g^2, twice."""
    if len(polynomial) == 1:
        return [polynomial[0] % prime]
    even, odd = (_evaluated(polynomial[start::2], g * g % prime, prime) for start in (0, 1))
    turned = [x * value % prime for x, value in zip(_odd_powers(g, len(odd), prime), odd, strict=True)]
    return plus(even, 1, turned, prime) + plus(even, -1, turned, prime)  # the second half at -x


def _interpolated(ordered: Sequence[int], g: int, prime: int) -> list[int]:
    if len(ordered) == 1:
        return list(ordered)
    half, halved = len(ordered) // 2, (prime + 1) // 2
    at_x, at_minus_x = ordered[:half], ordered[half:]
    inverses = _odd_powers(pow(g, -1, prime), half, prime)
    even = [value * halved % prime for value in plus(at_x, 1, at_minus_x, prime)]
    turned = [value * halved % prime for value in plus(at_x, -1, at_minus_x, prime)]
    odd = [x * value % prime for x, value in zip(inverses, turned, strict=True)]
    pairs = zip(*(_interpolated(part, g * g % prime, prime) for part in (even, odd)), strict=True)
    return [coefficient for pair in pairs for coefficient in pair]


def _odd_powers(g: int, count: int, prime: int) -> list[int]:
    powers = [g]
    while len(powers) < count:
        powers.append(powers[-1] * g * g % prime)
    return powers


def a_key(seed: bytes, session: bytes, prime: int, dimension: int, sender: str, layout: bytes) -> bytes:
    sizes = (prime.to_bytes(8, "big"), length(dimension).to_bytes(8, "big"))
    return derive(seed, "ckks a", session, *sizes, sender.encode(), layout, length=16)


def each_ciphertext(vector: Sequence[int]) -> list[Sequence[int]]:
    return [vector[start : start + N] for start in range(0, len(vector), N)]


def encrypted(
    wholes: Sequence[int], noise: Sequence[int], a: Sequence[int], secret: Sequence[int], made: Parameters
) -> list[int]:
    """c0, from noise for each coefficient of the whole length and the key's coefficients."""
    prime, key = made.prime, values(secret, made.prime)
    scaled = [made.spacing * whole for whole in wholes] + [0] * (len(noise) - len(wholes))
    messages = each_ciphertext(plus(scaled, 1, noise, prime))
    hidden = [values(message, prime) for message in messages]
    covers = [[x * s for x, s in zip(part, key, strict=True)] for part in each_ciphertext(a)]
    return [c for part, cover in zip(hidden, covers, strict=True) for c in plus(part, -1, cover, prime)]


@dataclass(frozen=True)
class Opened:
    """Of a sum: whole numbers and noise of every coefficient, also of those behind the last coordinate."""

    wholes: list[int]
    noise: list[int]


def decrypted(
    total: Sequence[int], streams: Sequence[Sequence[int]], secret: Sequence[int], made: Parameters
) -> Opened:
    """Of the sum c0 of the uploads with these ``a``."""
    prime, key, a = made.prime, values(secret, made.prime), [0] * len(total)
    for stream in streams:
        a = plus(a, 1, stream, prime)
    opened = Opened([], [])
    for c0, part in zip(each_ciphertext(total), each_ciphertext(a), strict=True):
        shown = coefficients([(c + x * s) % prime for c, x, s in zip(c0, part, key, strict=True)], prime)
        centred = [value - prime if value > prime // 2 else value for value in shown]
        rounded = [(value + made.spacing // 2) // made.spacing for value in centred]
        opened.wholes.extend(rounded)
        opened.noise.extend(value - made.spacing * whole for value, whole in zip(centred, rounded, strict=True))
    return opened


def fails(opened: Opened, seeds: Sequence[bytes], dimension: int, made: Parameters) -> bool:
    """Whether this is no sum: `DecryptionFailed`."""
    beyond = any(abs(whole) > made.largest for whole in opened.wholes)
    return beyond or any(opened.wholes[dimension:]) or not 1 <= len(set(seeds)) == len(seeds) <= made.clients


# ---- section 3


def no_key(encoded: bytes) -> str | None:
    """Why these bytes are refused, or None for a key."""
    if len(encoded) != 1056:
        return "length"
    pairs = _pairs(encoded)
    if 3 in pairs:
        return "bits 11"
    return None if 2304 <= sum(pair != 0 for pair in pairs) <= 3072 else "weight"


def key_coefficients(encoded: bytes) -> list[int]:
    return [(0, 1, -1)[pair] for pair in _pairs(encoded)]


def tag_key(encoded: bytes) -> bytes:
    return encoded[N // 4 :]


def _pairs(encoded: bytes) -> list[int]:
    return [byte >> shift & 3 for byte in encoded[: N // 4] for shift in (0, 2, 4, 6)]


def key_id(encoded: bytes) -> bytes:
    return digest("ckks key id", encoded)


def set_up_session(run: str, configuration: bytes, roster: bytes, after: int) -> bytes:
    return digest("key set-up", run.encode(), configuration, roster, after.to_bytes(8, "big"))


def package(session: bytes, giver: str, receiver: str, join_key: bytes, ephemeral: bytes, encoded: bytes) -> bytes:
    """One part of a giver's reply, for one receiver; ``ephemeral`` is the secret half."""
    about, public = key_id(encoded), public_key(ephemeral)
    sealing = derive(agree(ephemeral, join_key), "delivery", session, about)
    bound = _package_bound(session, giver, receiver, join_key, public, about)
    return pack([receiver, join_key, public, about, seal(sealing, encoded, bound)])


def unpackaged(session: bytes, giver: str, join_secret: bytes, part: bytes) -> bytes:
    """The encoded key that a package holds."""
    receiver, join_key, ephemeral, about, sealed = unpack(part)
    sealing = derive(agree(join_secret, ephemeral), "delivery", session, about)
    return opened(sealing, sealed, _package_bound(session, giver, receiver, join_key, ephemeral, about))


def _package_bound(session: bytes, giver: str, receiver: str, *rest: bytes) -> bytes:
    return digest("package", session, giver.encode(), receiver.encode(), *rest)


def opened(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    return AESGCM(key).decrypt(bytes(12), sealed, associated)


def key_received(name: bytes, round: int, tag: bytes) -> bytes:
    """`KeyReceived`: an array like every record of secagg.md, section 3."""
    return pack([name, round, tag])


# ---- section 4


def model_tag(key: bytes, run: str, after: int, model: bytes) -> bytes:
    return hmac.digest(key, digest("model tag", run.encode(), after.to_bytes(8, "big"), model), "sha256")


def binding(quorum: int, roster: int, colluders: int) -> int:
    return max(quorum, (roster + colluders) // 2 + 1)


def settled(tags: Mapping[str, bytes], binding: int) -> bytes | None:
    """The tag that so many said."""
    said = [tags[name] for name in in_order(tags)]
    return next((tag for tag in said if said.count(tag) >= binding), None)


# ---- section 5


def catch_up_session(run: str, configuration: bytes, roster: bytes, after: int) -> bytes:
    return digest("catch-up", run.encode(), configuration, roster, after.to_bytes(8, "big"))


def checkpoint(key: bytes, session: bytes, sealer: str, tag: bytes, salt: bytes, model: bytes) -> bytes:
    """`Checkpoint`, the one part of the reply at step 9."""
    sealing = derive(key, "checkpoint", session, salt)
    return pack([tag, salt, seal(sealing, model, digest("checkpoint", session, sealer.encode(), tag))])


def model_of(key: bytes, session: bytes, sealer: str, part: bytes) -> bytes:
    tag, salt, sealed = unpack(part)
    return opened(derive(key, "checkpoint", session, salt), sealed, digest("checkpoint", session, sealer.encode(), tag))
