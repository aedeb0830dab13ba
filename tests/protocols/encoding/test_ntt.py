from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.encoding.ckks import _context
from protocols.encoding.ntt import _BATCH, Integers, Transform, _Factors, transform
from protocols.encoding.rlwe import DEGREE, LARGEST_NOISE, PRIMES, multiply
from protocols.encoding.sealfile import scratch, words
from protocols.errors import ConfigurationError
from protocols.ring import RingVector

PER_PRIME = pytest.mark.parametrize("prime", PRIMES.values(), ids=PRIMES)
SMALL = 16


def full(prime: int) -> Transform:
    return transform(DEGREE, prime)


# ---- what it is, by definition


@functools.cache
def root_of(degree: int, prime: int) -> int:
    """The least primitive 2N-th root of unity, found the slow way: among all odd powers of any of them."""
    found = next(r for b in range(2, 100) if pow(r := pow(b, (prime - 1) // (2 * degree), prime), degree, prime) != 1)
    return min(pow(found, odd, prime) for odd in range(1, 2 * degree, 2))


def reversed_bits(place: int, degree: int) -> int:
    return int(f"{place:0{degree.bit_length() - 1}b}"[::-1], 2)


def evaluated(coefficients: list[int], place: int, prime: int) -> int:
    """The value in one place: at the root's power of 2 * (the place, its bits reversed) + 1."""
    degree = len(coefficients)
    point = pow(root_of(degree, prime), 2 * reversed_bits(place, degree) + 1, prime)
    return functools.reduce(lambda value, coefficient: (value * point + coefficient) % prime, coefficients[::-1], 0)


def convolved(left: Integers, right: Integers, prime: int) -> RingVector:
    """The negacyclic product: integers are multiplied that have the coefficients as digits of 128 bits."""
    pairs = [np.zeros((len(left), 2), np.uint64) for _ in range(2)]
    for pair, polynomial in zip(pairs, (left, right), strict=True):
        pair[:, 0] = polynomial % prime
    product = math.prod(int.from_bytes(pair.tobytes(), "little") for pair in pairs)
    digits = (
        np.frombuffer(product.to_bytes(32 * len(left), "little"), np.uint64).reshape(2, len(left), 2).astype(object)
    )
    low, high = digits[..., 0] + (digits[..., 1] << 64)
    return ((low - high) % prime).astype(np.uint64)


def within(prime: int) -> st.SearchStrategy[int]:
    extremes = [0, 1, -1, prime // 2, -(prime // 2), prime // 2 + 1, prime - 1, prime, -prime]
    return st.sampled_from(extremes) | st.integers(-prime, prime)


def polynomials(prime: int) -> st.SearchStrategy[Integers]:
    return st.lists(within(prime), min_size=SMALL, max_size=SMALL).map(lambda each: np.array(each, np.int64))


@given(st.sampled_from([*PRIMES.values()]), st.data())
def test_values_are_those_at_the_odd_powers_of_the_least_root_in_bit_reversed_order(
    prime: int, data: st.DataObject
) -> None:
    polynomial = data.draw(polynomials(prime))
    values = transform(SMALL, prime).forward(polynomial)
    assert values.dtype == np.uint64
    assert values.tolist() == [evaluated(polynomial.tolist(), place, prime) for place in range(SMALL)]


@PER_PRIME
def test_at_full_degree_too(prime: int) -> None:
    polynomial = np.random.default_rng(3).integers(-prime, prime, DEGREE, endpoint=True)
    values = full(prime).forward(polynomial)
    for place in (0, 1, 2, 1234, DEGREE - 1):
        assert int(values[place]) == evaluated(polynomial.tolist(), place, prime)


@given(st.sampled_from([*PRIMES.values()]), st.data())
def test_products_of_values_are_negacyclic_products(prime: int, data: st.DataObject) -> None:
    left, right = data.draw(polynomials(prime)), data.draw(polynomials(prime))
    small = transform(SMALL, prime)
    product = multiply(small.forward(left), small.forward(right), prime)
    slow = [0] * SMALL
    for i, x in enumerate(left.tolist()):
        for j, y in enumerate(right.tolist()):
            slow[(i + j) % SMALL] += x * y if i + j < SMALL else -x * y
    assert (small.inverse(product) % prime).tolist() == [each % prime for each in slow]


def extremes(prime: int) -> dict[str, Integers]:
    """Every coefficient as large as is allowed, with signs that add up in some place or other."""
    ones, half = np.ones(DEGREE, np.int64), np.int64(prime // 2)
    signs = {"constant": ones, "alternating": (-1) ** np.arange(DEGREE), "one": np.eye(1, DEGREE, 7, np.int64)[0]}
    signs["of a random word"] = np.random.default_rng(5).choice([-1, 1], DEGREE)
    return {
        f"{size} {name}": (sign * factor).astype(np.int64)
        for name, sign in signs.items()
        for size, factor in (("p/2", half), ("-p/2", -half), ("p", np.int64(prime)), ("-p", np.int64(-prime)))
    }


@PER_PRIME
def test_extreme_polynomials_come_back_and_multiply_right(prime: int) -> None:
    other = np.random.default_rng(4).integers(-prime, prime, DEGREE, endpoint=True)
    for name, polynomial in extremes(prime).items():
        values = full(prime).forward(polynomial)
        assert int(values.max()) < prime, name
        assert (full(prime).inverse(values) % prime == polynomial % prime).all(), name
        product = multiply(values, full(prime).forward(other), prime)
        assert (full(prime).inverse(product) % prime == convolved(polynomial, other, prime)).all(), name


@settings(max_examples=30)
@given(st.sampled_from([*PRIMES.values()]), st.integers(0, 2**32), st.integers(1, 3))
def test_polynomials_come_back_and_multiply_right(prime: int, seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    left, right = (generator.integers(-(prime // 2), prime // 2, count * DEGREE, endpoint=True) for _ in range(2))
    values = full(prime).forward(left)
    assert (full(prime).inverse(values) == left).all()
    product = full(prime).inverse(multiply(values, full(prime).forward(right), prime)) % prime
    for part in (slice(start, start + DEGREE) for start in range(0, count * DEGREE, DEGREE)):
        assert (product[part] == convolved(left[part], right[part], prime)).all()


@settings(max_examples=30)
@given(st.sampled_from([*PRIMES.values()]), st.integers(0, 2**32))
def test_any_values_come_back_from_coefficients_within_half_the_prime(prime: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, prime, DEGREE, np.uint64)
    coefficients = full(prime).inverse(values)
    assert coefficients.dtype == np.int64 and np.abs(coefficients).max() <= prime // 2
    assert (full(prime).forward(coefficients) == values).all()


@PER_PRIME
def test_the_largest_values_come_back(prime: int) -> None:
    """The sums of the inverse grow fastest where all values are p - 1, or one half of them."""
    whole = np.full(DEGREE, prime - 1, np.uint64)
    assert full(prime).inverse(whole).tolist() == [-1] + [0] * (DEGREE - 1)
    for bit in range(DEGREE.bit_length() - 1):
        values = np.where(np.arange(DEGREE) >> bit & 1, np.uint64(0), whole)
        assert (full(prime).forward(full(prime).inverse(values)) == values).all()


def test_many_polynomials_lie_one_after_the_other_and_what_is_given_is_not_changed() -> None:
    prime = PRIMES[54]
    given_in = np.random.default_rng(6).integers(-prime, prime, (2 * _BATCH + 3) * DEGREE, endpoint=True)
    before = given_in.copy()
    values = full(prime).forward(given_in)
    alone = [full(prime).forward(each) for each in given_in.reshape(-1, DEGREE)]
    assert (given_in == before).all() and (values == np.concatenate(alone)).all()
    kept = values.copy()
    assert (full(prime).inverse(values) % prime == before % prime).all() and (values == kept).all()


# ---- the bounds that nothing overflows by


def congruent(left: Integers, right: list[int], prime: int) -> bool:
    return all((int(x) - y) % prime == 0 for x, y in zip(left, right, strict=True))


def around_halves(prime: int, most: int) -> Integers:
    """Multiples of p/2 up to ``most`` times p, on both sides of zero, and what is near them."""
    near = [-300, -100, -10, -2, -1, 0, 1, 2, 10, 100, 300]
    values = [half * prime // 2 + each for half in range(-2 * most, 2 * most + 1) for each in near]
    return np.array([value for value in values if abs(value) <= most * prime], np.int64)


def half_of(prime: int) -> float:
    """p/2, and what the three roundings of a quotient up to 64 lose: below a half for primes up to 2**44."""
    return prime / 2 + math.floor(3 * 64 * prime / 2**53)


@PER_PRIME
def test_a_product_is_right_and_as_small_as_is_said(prime: int) -> None:
    """Below 2**48 within (1/2 + k/10) p for factors within k p up to 14; above that, of factors within 7 p, reduced."""
    narrow = prime < 1 << 48
    factors = around_halves(prime, 14 if narrow else 7)
    k = np.maximum(1, np.abs(factors) / prime)
    bound = (0.5 + k / 10) * prime if narrow else half_of(prime)
    chosen = [0, 1, 2, prime // 2, prime // 2 + 1, prime - 1, *full(prime)._roots.values[1:60].tolist()]
    for constant in chosen:
        constants = _Factors(np.array([constant]), np.array([constant]) / prime)
        products = full(prime)._times(factors.reshape(1, -1, 1), constants, 0).reshape(-1)
        assert congruent(products, [int(factor) * constant for factor in factors], prime)
        assert (np.abs(products) <= bound).all()


def test_with_such_products_values_grow_to_less_than_14_p_and_7_p_where_they_are_reduced() -> None:
    """Twelve stages from +-p, each adding a product of what came before it."""
    narrow = wide = 1.0
    for _ in range(DEGREE.bit_length() - 1):
        narrow += 0.5 + narrow / 10
        wide += half_of(PRIMES[54]) / PRIMES[54]
    assert narrow < 14 and wide < 7.001


@PER_PRIME
def test_nothing_that_was_tried_grows_further(prime: int) -> None:
    most = 14 if prime < 1 << 48 else 7
    for name, polynomial in extremes(prime).items():
        evaluated = full(prime)._evaluate(polynomial.reshape(DEGREE, 1).copy())
        assert np.abs(evaluated).max() <= most * prime, name


@PER_PRIME
def test_reducing_is_right_to_64_times_the_prime(prime: int) -> None:
    values = around_halves(prime, 64)
    reduced = full(prime)._reduce(values.copy())
    assert congruent(reduced, values.tolist(), prime)
    assert np.abs(reduced).max() <= half_of(prime)


# ---- that it is SEAL's


@PER_PRIME
def test_a_secret_key_of_seals_has_ternary_coefficients(prime: int) -> None:
    """With another root or order of values they would look uniform: all ternary with chance (3/p)**4096."""
    key = seal.KeyGenerator(_context(prime)).secret_key()
    with scratch() as file:
        values = words(key.data().dyn_array(), DEGREE, file)
    coefficients = full(prime).inverse(values)
    assert set(coefficients.tolist()) == {-1, 0, 1}
    assert (full(prime).forward(coefficients) == values).all()


@PER_PRIME
def test_an_encryption_of_zero_by_seal_has_its_small_noise(prime: int) -> None:
    """c0 + c1 * s, by values, are the noise's: within 21 in every coefficient, always."""
    context = _context(prime)
    key, ciphertext = seal.KeyGenerator(context).secret_key(), seal.Ciphertext()
    seal.Encryptor(context, key).encrypt_zero_symmetric(ciphertext)
    with scratch() as file:
        secret = words(key.data().dyn_array(), DEGREE, file)
        found = words(ciphertext.dyn_array(), 2 * DEGREE, file)
    values = (found[:DEGREE] + multiply(found[DEGREE:], secret, prime)) % np.uint64(prime)
    noise = full(prime).inverse(values)
    assert 0 < np.abs(noise).max() <= LARGEST_NOISE


# ---- refusals


@pytest.mark.parametrize(
    ("degree", "prime"),
    [
        (0, PRIMES[54]),
        (1, PRIMES[54]),
        (-4096, PRIMES[54]),
        (4095, PRIMES[54]),
        (8192, PRIMES[54]),  # 1 mod 8192 only
        (4096, PRIMES[54] + 2),
        (4096, 12289 + 2),
        (4096, 18014398509506561),  # the least prime above 2**54 that is 1 mod 8192
    ],
)
def test_a_transform_that_there_is_not_is_refused(degree: int, prime: int) -> None:
    with pytest.raises(ConfigurationError, match=f"degree {degree} modulo {prime}"):
        transform(degree, prime)


@pytest.mark.parametrize("modulus", [1, 8193, -8191, 201351169])
def test_a_modulus_that_is_no_prime_is_refused(modulus: int) -> None:
    with pytest.raises(ConfigurationError):
        transform(4096, modulus)


def test_tables_are_made_once() -> None:
    assert full(PRIMES[32]) is full(PRIMES[32])
