from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding import Upload
from protocols.encoding.rlwe import DEGREE, NOISE_DEVIATION, PRIME, CKKSParameters, multiply, public_a, shift
from protocols.errors import ConfigurationError
from tests.protocols.test_shamir import is_prime

PRIMES = [PRIME, 40961, 3, 18014398509481951]  # the last is 2**54 - 33, the largest prime that a carrier allows


def elements(prime: int) -> st.SearchStrategy[list[int]]:
    return st.lists(
        st.one_of(st.sampled_from([0, 1, prime - 1, prime // 2]), st.integers(0, prime - 1)), min_size=4, max_size=4
    )


def test_the_prime_is_the_largest_below_2_to_54_with_a_transform_of_this_degree() -> None:
    assert is_prime(PRIME) and PRIME % (2 * DEGREE) == 1 and PRIME < 1 << 54
    assert not any(is_prime(other) for other in range(PRIME + 2 * DEGREE, 1 << 54, 2 * DEGREE))


@given(st.sampled_from(PRIMES), st.data())
def test_products_are_exact(prime: int, data: st.DataObject) -> None:
    left, right = data.draw(elements(prime)), data.draw(elements(prime))
    product = multiply(np.array(left, np.uint64), np.array(right, np.uint64), prime)
    assert product.dtype == np.uint64
    assert product.tolist() == [x * y % prime for x, y in zip(left, right, strict=True)]


@pytest.mark.parametrize("prime", PRIMES)
def test_many_random_products_are_exact(prime: int) -> None:
    generator = np.random.default_rng(7)
    left, right = (generator.integers(0, prime, 50_000, np.uint64) for _ in range(2))
    # Products near a multiple of p are where a float64 quotient is wrong first.
    right[:1000] = [pow(int(x), -1, prime) if x else 0 for x in left[:1000]]
    expected = left.astype(object) * right.astype(object) % prime
    assert (multiply(left, right, prime) == expected.astype(np.uint64)).all()


@given(elements(PRIME), elements(PRIME), st.data())
def test_a_shift_is_c0_plus_the_difference_times_s(c0: list[int], difference: list[int], data: st.DataObject) -> None:
    secret = data.draw(elements(PRIME))[:2]  # shorter than the vector: the same s for each of two ciphertexts
    shifted = shift(np.array(c0, np.uint64), np.array(difference, np.uint64), np.array(secret, np.uint64), PRIME)
    assert shifted.tolist() == [(c + d * s) % PRIME for c, d, s in zip(c0, difference, secret * 2, strict=True)]


@given(st.floats(2**-20, 2**12), st.integers(1, 200))
def test_headroom_and_grid_are_what_the_design_asks_for(bound: float, clients: int) -> None:
    try:
        parameters = CKKSParameters(10, bound, clients)
    except ConfigurationError:
        # Refused only where the grid would swallow the update; with scale 2**40 that is a bound below 16 grid steps.
        assert bound < 2**-12 or bound * clients > 2**12
        return
    assert clients * bound * parameters.scale < PRIME / 4
    assert parameters.scale == 2**40 or 2 * clients * bound * parameters.scale >= PRIME / 4
    assert parameters.grid >= 2**10 * parameters.noise
    assert parameters.grid < 2**11 * parameters.noise
    assert parameters.grid == 2.0 ** round(np.log2(parameters.grid))
    assert parameters.noise == NOISE_DEVIATION * np.sqrt(DEGREE * clients) / parameters.scale


@pytest.mark.parametrize(
    "arguments",
    [
        {"dimension": 0},
        {"clients": 0},
        {"bound": 0.0},
        {"bound": float("inf")},
        {"bound": float("nan")},
        {"bound": 2.0**-30},  # below the grid
        {"clients": 1 << 40},
        {"degree": 2048, "prime": (1 << 55) - 55},  # beyond 128-bit security
        {"degree": 1024},
        {"degree": 4097},
    ],
)
def test_parameters_without_headroom_precision_or_security_are_refused(arguments: dict[str, float]) -> None:
    good: dict[str, float] = {"dimension": 10, "bound": 4.0, "clients": 5}
    CKKSParameters(**good)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        CKKSParameters(**good | arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dimension", "ciphertexts"), [(1, 1), (DEGREE, 1), (DEGREE + 1, 2), (3 * DEGREE, 3)])
def test_a_whole_model_is_flattened_into_full_ciphertexts(dimension: int, ciphertexts: int) -> None:
    parameters = CKKSParameters(dimension, 4.0, 5)
    assert parameters.ciphertexts == ciphertexts
    assert parameters.layout.length == ciphertexts * DEGREE
    assert parameters.layout.seed_bytes == 32


def test_a_follows_from_seed_session_sender_and_parameters_and_never_repeats() -> None:
    parameters = CKKSParameters(DEGREE + 1, 4.0, 5)
    seed = bytes(32)
    a = public_a(parameters, Upload(b"session", "c1", seed))
    assert (a == public_a(parameters, Upload(b"session", "c1", seed))).all()
    assert len(a) == 2 * DEGREE and int(a.max()) < PRIME
    assert len(np.unique(a)) == len(a)  # of 2**54 values, 8192 collide with probability below 2e-9
    for other in (Upload(b"other", "c1", seed), Upload(b"session", "c2", seed), Upload(b"session", "c1", b"\x01" * 32)):
        assert not (a == public_a(parameters, other)).any()
    assert not (a == public_a(CKKSParameters(DEGREE + 1, 2.0, 5), Upload(b"session", "c1", seed))).any()
