from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols.encoding import Upload
from protocols.encoding.quantise import FEWEST_LEVELS, noise_tail
from protocols.encoding.rlwe import (
    DEGREE,
    LARGEST_NOISE,
    NOISE_DEVIATION,
    PRIME,
    PRIMES,
    CKKSParameters,
    a_masks,
    multiply,
    narrowest,
    security,
    shift,
)
from protocols.errors import ConfigurationError
from protocols.masking import apply_masks
from protocols.ring import RingVector
from tests.protocols.test_shamir import is_prime

# The last is 2**54 - 33, the largest prime that a carrier allows.
MODULI = [*PRIMES.values(), 40961, 3, 18014398509481951]


def elements(prime: int) -> st.SearchStrategy[list[int]]:
    return st.lists(
        st.one_of(st.sampled_from([0, 1, prime - 1, prime // 2]), st.integers(0, prime - 1)), min_size=4, max_size=4
    )


# ---- arithmetic


@pytest.mark.parametrize("bits", PRIMES)
def test_the_primes_are_the_largest_of_their_bits_with_a_transform_of_this_degree(bits: int) -> None:
    prime = PRIMES[bits]
    assert is_prime(prime) and prime % (2 * DEGREE) == 1 and prime.bit_length() == bits
    assert not any(is_prime(other) for other in range(prime + 2 * DEGREE, 1 << bits, 2 * DEGREE))


@given(st.sampled_from(MODULI), st.data())
def test_products_are_exact(prime: int, data: st.DataObject) -> None:
    left, right = data.draw(elements(prime)), data.draw(elements(prime))
    product = multiply(np.array(left, np.uint64), np.array(right, np.uint64), prime)
    assert product.dtype == np.uint64
    assert product.tolist() == [x * y % prime for x, y in zip(left, right, strict=True)]


@pytest.mark.parametrize("prime", MODULI)
def test_many_random_products_are_exact(prime: int) -> None:
    generator = np.random.default_rng(7)
    left, right = (generator.integers(0, prime, 50_000, np.uint64) for _ in range(2))
    # Products near a multiple of p are where a float64 quotient is wrong first.
    right[:1000] = [pow(int(x), -1, prime) if x else 0 for x in left[:1000]]
    expected = left.astype(object) * right.astype(object) % prime
    assert (multiply(left, right, prime) == expected.astype(np.uint64)).all()


@given(st.sampled_from([*PRIMES.values()]), st.data())
def test_a_shift_is_c0_plus_the_difference_times_s(prime: int, data: st.DataObject) -> None:
    c0, difference = data.draw(elements(prime)), data.draw(elements(prime))
    secret = data.draw(elements(prime))[:2]  # shorter than the vector: the same s for each of two ciphertexts
    shifted = shift(np.array(c0, np.uint64), np.array(difference, np.uint64), np.array(secret, np.uint64), prime)
    assert shifted.tolist() == [(c + d * s) % prime for c, d, s in zip(c0, difference, secret * 2, strict=True)]


# ---- headroom

PARAMETERS = (
    st.floats(2**-30, 2**30),
    st.integers(1, 100_000),
    st.sampled_from([*PRIMES]),
    st.just(0.0) | st.floats(1e-9, 1e3),
)


def constructed(bound: float, clients: int, bits: int, noise: float, dimension: int = 10_000) -> CKKSParameters:
    """The parameters with noise of so many bounds; refused ones are no example."""
    try:
        return CKKSParameters(dimension, bound, clients, bits, noise * bound)
    except ConfigurationError:
        assume(False)
        raise


def largest_sum(dimension: int, bound: float, clients: int, noise: float, levels: float, spacing: int) -> Fraction:
    """What a coefficient of a sum can be, both kinds of noise included, exactly."""
    tail = Fraction(noise_tail(noise * levels, dimension))
    wholes = clients * (Fraction(bound) * Fraction(levels) + 1) + tail
    return wholes * spacing + LARGEST_NOISE * clients


def with_pair(p: CKKSParameters, levels: float, spacing: int) -> Fraction:
    return largest_sum(p.dimension, p.bound, p.clients, p.noise, levels, spacing)


def least_spacing(clients: int, bits: int) -> int:
    """The least power of two above twice 21 a client and, from 48 bits on, 2**10 deviations of their sum."""
    margin = 2**10 * NOISE_DEVIATION * math.sqrt(clients) if bits >= 48 else 0.0
    return next(1 << k for k in range(64) if 1 << k > max(2 * 21 * clients, margin))


def is_a_power_of_two(number: float) -> bool:
    return math.frexp(number)[0] == 0.5


@given(*PARAMETERS)
def test_no_sum_can_wrap_and_its_noise_always_rounds_away(bound: float, clients: int, bits: int, noise: float) -> None:
    p = constructed(bound, clients, bits, noise)
    assert with_pair(p, p.levels, p.spacing) < Fraction(p.prime, 4)
    assert p.spacing > 2 * LARGEST_NOISE * clients
    assert p.largest == math.floor(clients * (bound * p.levels + 1) + noise_tail(p.noise * p.levels, p.dimension))
    if bits >= 48:
        assert p.spacing > 2**10 * NOISE_DEVIATION * math.sqrt(clients)


@given(*PARAMETERS)
def test_levels_and_then_the_spacing_are_the_largest_powers_of_two(
    bound: float, clients: int, bits: int, noise: float
) -> None:
    p = constructed(bound, clients, bits, noise)
    assert is_a_power_of_two(p.levels) and is_a_power_of_two(p.spacing)
    assert FEWEST_LEVELS <= p.levels * bound <= 2**28 * (1 + 2**-50)
    more = least_spacing(clients, bits)
    # To 2**-50: near a power of two, which of the two it is may be the rounding's of a float64.
    just = Fraction(p.prime, 4) * (1 - Fraction(1, 2**50))
    assert 2 * p.levels * bound > 2**28 or with_pair(p, 2 * p.levels, more) >= just - 1
    assert with_pair(p, p.levels, 2 * p.spacing) >= just - 1


@given(*PARAMETERS)
def test_what_is_refused_has_no_room_for_256_levels(bound: float, clients: int, bits: int, noise: float) -> None:
    try:
        CKKSParameters(10_000, bound, clients, bits, noise * bound)
    except ConfigurationError as error:
        assert "no useful precision" in str(error)
        levels = 2.0 ** math.ceil(math.log2(FEWEST_LEVELS / bound))
        sum_of_256 = largest_sum(10_000, bound, clients, noise * bound, levels, least_spacing(clients, bits))
        assert sum_of_256 >= Fraction(PRIMES[bits], 4) - 1


@given(*PARAMETERS, st.floats(0, 1))
def test_less_noise_never_needs_a_coarser_step(
    bound: float, clients: int, bits: int, noise: float, part: float
) -> None:
    p = constructed(bound, clients, bits, noise)
    quieter = CKKSParameters(p.dimension, bound, clients, bits, p.noise * part)
    assert CKKSParameters(p.dimension, bound, clients, bits).step <= quieter.step <= p.step


@given(*PARAMETERS)
def test_what_parameters_say_of_precision_is_one_number(bound: float, clients: int, bits: int, noise: float) -> None:
    p = constructed(bound, clients, bits, noise)
    assert p.step * p.levels == 1 and p.scale == p.spacing * p.levels
    assert p.deviation == pytest.approx(NOISE_DEVIATION * math.sqrt(clients) / p.scale)
    assert p.deviation < p.step / 10
    # A mean of n values that are rounded apart: each of a deviation of half a step at most.
    assert p.error == pytest.approx(p.step / 2 / math.sqrt(clients))


@pytest.mark.parametrize(
    "arguments",
    [
        {"dimension": 0},
        {"clients": 0},
        {"clients": -1},
        {"bound": 0.0},
        {"bound": -1.0},
        {"bound": float("inf")},
        {"bound": float("nan")},
        {"noise": -1.0},
        {"noise": float("inf")},
        {"noise": float("nan")},
        {"noise": 1e300},
        {"noise": 2.0**40},
        {"clients": 1 << 40},
        {"clients": 1000, "bits": 32},
        {"noise": 1e6, "bits": 32},
        {"bits": 30},
        {"bits": 55},
        {"bits": 0},
        {"degree": 2048},
        {"degree": 8192},
        {"degree": 4097},
    ],
)
def test_parameters_without_headroom_precision_or_security_are_refused(arguments: dict[str, float]) -> None:
    good: dict[str, float] = {"dimension": 10, "bound": 4.0, "clients": 5}
    CKKSParameters(**good)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        CKKSParameters(**good | arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"bound": 1e-310}, {"clients": 1 << 1100}, {"dimension": 10**400, "noise": 0.1}])
def test_numbers_that_a_float64_does_not_hold_are_refused_too(arguments: dict[str, float]) -> None:
    good: dict[str, float] = {"dimension": 10, "bound": 4.0, "clients": 5}
    with pytest.raises(ConfigurationError):
        CKKSParameters(**good | arguments)  # type: ignore[arg-type]


# ---- security and width


@pytest.mark.parametrize(
    ("degree", "bits", "level"),
    [
        (2048, 29, 256), (2048, 30, 192), (2048, 37, 192), (2048, 38, 128), (2048, 54, 128),
        (4096, 32, 256), (4096, 54, 256), (4096, 58, 256), (4096, 59, 192), (4096, 75, 192), (4096, 109, 128),
        (8192, 118, 256), (8192, 152, 192), (8192, 218, 128),
    ],
)  # fmt: skip
def test_security_is_what_the_standards_table_says(degree: int, bits: int, level: int) -> None:
    assert security(degree, bits) == level


@pytest.mark.parametrize(("degree", "bits"), [(2048, 55), (4096, 110), (8192, 219), (1024, 20), (16384, 54), (0, 1)])
def test_what_the_table_does_not_have_or_gives_less_than_128_bits_is_refused(degree: int, bits: int) -> None:
    with pytest.raises(ConfigurationError, match=f"degree {degree} does not give 128-bit security"):
        security(degree, bits)


@pytest.mark.parametrize("bits", PRIMES)
def test_every_width_has_256_bits_of_security(bits: int) -> None:
    assert CKKSParameters(10, 4.0, 5, bits).security == 256


def possible(dimension: int, bound: float, clients: int) -> list[CKKSParameters]:
    """In every width that has room, from the narrowest."""
    found = []
    for bits in PRIMES:
        try:
            found.append(CKKSParameters(dimension, bound, clients, bits))
        except ConfigurationError:
            continue
    return found


@given(st.floats(2**-10, 2**10), st.integers(1, 100_000), st.floats(2**-30, 1))
def test_the_narrowest_is_the_first_width_whose_step_is_fine_enough(
    bound: float, clients: int, precision: float
) -> None:
    widths = possible(10, bound, clients)
    assume(widths)
    fine = [p for p in widths if p.step <= precision * bound]
    if fine:
        assert narrowest(10, bound, clients, precision * bound) == fine[0]
    else:
        with pytest.raises(
            ConfigurationError, match=re.escape(f"ask for {1.01 * min(p.step for p in widths):.3g} at the finest")
        ):
            narrowest(10, bound, clients, precision * bound)


@given(st.floats(2**-10, 2**10), st.integers(1, 100_000))
def test_without_a_precision_it_has_28_bits_of_levels_or_as_many_as_there_can_be(bound: float, clients: int) -> None:
    widths = possible(10, bound, clients)
    assume(widths)
    found = narrowest(10, bound, clients)
    enough = [p for p in widths if 2 * p.levels * bound > 2**28]
    assert found == (enough or widths[-1:])[0]
    assert found.step == min(p.step for p in widths)


@pytest.mark.parametrize(
    ("clients", "precision", "bits"),
    [(5, 1e-5, 32), (5, 1e-7, 40), (5, None, 48), (1000, 1e-3, 40), (1000, 1e-5, 48), (1000, None, 54)],
)
def test_so_many_clients_need_these_widths(clients: int, precision: float | None, bits: int) -> None:
    assert narrowest(10, 1.0, clients, precision).bits == bits


@pytest.mark.parametrize("precision", [0.0, -1.0, math.nan, 1e-20])
def test_a_precision_that_nothing_has_is_refused(precision: float) -> None:
    with pytest.raises(ConfigurationError, match=r"ask for 3\.76e-09 at the finest"):
        narrowest(10, 1.0, 5, precision)


def test_what_no_width_has_room_for_is_refused_as_it_is_at_construction() -> None:
    for precision in (None, 1e-3):
        with pytest.raises(ConfigurationError, match="no useful precision in 54 bits"):
            narrowest(10, 1.0, 1 << 40, precision)


# ---- layout


@pytest.mark.parametrize(("dimension", "ciphertexts"), [(1, 1), (DEGREE, 1), (DEGREE + 1, 2), (3 * DEGREE, 3)])
@pytest.mark.parametrize("bits", PRIMES)
def test_a_whole_model_is_flattened_into_full_ciphertexts(dimension: int, ciphertexts: int, bits: int) -> None:
    p = CKKSParameters(dimension, 4.0, 5, bits)
    assert p.ciphertexts == ciphertexts
    assert p.layout.length == ciphertexts * DEGREE and p.layout.ring.modulus == PRIMES[bits]
    assert p.layout.seed_bytes == 32 and p.layout.clients == 5
    packed = p.ring.pack(p.ring.zeros(p.layout.length))
    assert p.bytes_per_parameter == len(packed) / dimension


def test_a_full_upload_has_the_primes_bytes_a_parameter() -> None:
    widths = {bits: CKKSParameters(DEGREE, 4.0, 5, bits).bytes_per_parameter for bits in PRIMES}
    assert widths == {32: 4, 40: 5, 48: 6, 54: 7}


def test_layouts_differ_wherever_sums_would_not_decode_alike() -> None:
    base = CKKSParameters(10, 4.0, 5)
    others = [
        CKKSParameters(11, 4.0, 5),
        CKKSParameters(10, 4.5, 5),
        CKKSParameters(10, 4.0, 6),
        CKKSParameters(10, 4.0, 5, noise=1e-9),
        *(CKKSParameters(10, 4.0, 5, bits) for bits in PRIMES if bits != base.bits),
    ]
    assert len({base.layout.digest, *(other.layout.digest for other in others)}) == 1 + len(others)
    assert base.layout == CKKSParameters(10, 4, 5, noise=0).layout


# ---- the public a

UPLOAD = Upload(b"session", "c1", bytes(32))


def public_a(parameters: CKKSParameters, *uploads: Upload) -> RingVector:
    vector = parameters.ring.zeros(parameters.layout.length)
    apply_masks(vector, parameters.ring, a_masks(parameters, uploads))
    return vector


@pytest.mark.parametrize("bits", PRIMES)
def test_a_follows_from_its_upload_and_does_not_repeat(bits: int) -> None:
    p = CKKSParameters(DEGREE + 1, 4.0, 5, bits)
    a = public_a(p, UPLOAD)
    assert (a == public_a(p, UPLOAD)).all() and len(a) == 2 * DEGREE and int(a.max()) < p.prime
    if bits == 54:
        assert len(np.unique(a)) == len(a)  # of 2**54 values, 8192 collide with probability below 2e-9


def test_a_is_bound_to_session_sender_seed_and_parameters() -> None:
    """That single residues agree has probability 2**-54; here it is always the same, as nothing is drawn."""
    p = CKKSParameters(DEGREE + 1, 4.0, 5)
    a = public_a(p, UPLOAD)
    uploads = [
        Upload(b"other", "c1", bytes(32)),
        Upload(b"session", "c2", bytes(32)),
        Upload(b"session", "c1", b"\x01" * 32),
        Upload(b"sessio", "nc1", bytes(32)),  # the same letters, cut elsewhere
    ]
    for other in uploads:
        assert not (a == public_a(p, other)).any()
    for parameters in (
        CKKSParameters(DEGREE + 2, 4.0, 5),
        CKKSParameters(DEGREE + 1, 2.0, 5),
        CKKSParameters(DEGREE + 1, 4.0, 6),
        CKKSParameters(DEGREE + 1, 4.0, 5, noise=0.1),
    ):
        assert not (a == public_a(parameters, UPLOAD)).any()
    keys = {a_masks(CKKSParameters(DEGREE + 1, 4.0, 5, bits), [UPLOAD])[0].key for bits in PRIMES}
    assert len(keys) == len(PRIMES)


def test_the_a_of_a_sum_is_the_sum_of_every_a() -> None:
    p = CKKSParameters(DEGREE, 4.0, 5)
    uploads = [Upload(b"session", f"c{i}", bytes([i]) * 32) for i in range(5)]
    each = np.array([public_a(p, upload) for upload in uploads]).astype(object)
    assert (public_a(p, *uploads) == each.sum(axis=0) % PRIME).all()
    assert not public_a(p).any()
