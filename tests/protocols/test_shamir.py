from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import shamir
from protocols.errors import ConfigurationError, MalformedMessage

secrets = st.binary(min_size=32, max_size=32)


def is_prime(number: int) -> bool:
    """Miller-Rabin with 24 fixed bases: wrong for a composite with probability below 2**-48."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89):
        x = pow(base, odd, number)
        if x not in (1, number - 1) and all((x := x * x % number) != number - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_field_is_a_prime_above_every_secret() -> None:
    assert is_prime(shamir.PRIME)
    assert 1 << (8 * shamir.SECRET_BYTES) < shamir.PRIME < 1 << (8 * shamir.SHARE_BYTES)


@given(secrets, st.integers(1, 9), st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, count))
    points = data.draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count, unique=True))
    shares = shamir.split(secret, threshold, points, os.urandom)
    chosen = data.draw(st.permutations(points))[: data.draw(st.integers(threshold, count))]
    assert shamir.join({x: shares[x] for x in chosen}, shamir.coefficients(chosen)) == secret


@given(secrets, secrets, st.integers(2, 6))
def test_fewer_shares_fit_every_secret_equally(secret: bytes, other: bytes, threshold: int) -> None:
    """For t - 1 shares there is a polynomial of degree t - 1 through them and any other secret: they exclude none."""
    points = list(range(1, threshold))
    shares = shamir.split(secret, threshold, [*points, 99], os.urandom)
    held = {x: shamir.element(shares[x]) for x in points}
    # The value at 99 that would make ``other`` the secret, by Lagrange over 0 and the held points.
    weights = shamir.coefficients([*points, 99])
    missing = (int.from_bytes(other, "big") - sum(weights[x] * y for x, y in held.items())) * pow(
        weights[99], -1, shamir.PRIME
    )
    forged = {x: shares[x] for x in points} | {99: (missing % shamir.PRIME).to_bytes(shamir.SHARE_BYTES, "big")}
    assert shamir.join(forged, weights) == other


def test_a_known_polynomial_gives_known_shares() -> None:
    """f(x) = 5 + 7x + 1x^2, with the coefficients in the order in which randomness is drawn."""
    drawn = iter([(7).to_bytes(33, "big"), (1).to_bytes(33, "big")])
    shares = shamir.split((5).to_bytes(32, "big"), 3, [1, 2, 3], lambda count: next(drawn))
    assert {x: int.from_bytes(share, "big") for x, share in shares.items()} == {1: 13, 2: 23, 3: 35}
    assert shamir.coefficients([1, 2, 3]) == {1: 3, 2: shamir.PRIME - 3, 3: 1}


def test_a_coefficient_at_or_above_the_prime_is_drawn_again() -> None:
    drawn = iter([shamir.PRIME.to_bytes(33, "big"), b"\xff" * 33, (7).to_bytes(33, "big")])
    shares = shamir.split(bytes(32), 2, [1, 2], lambda count: next(drawn))
    assert shamir.element(shares[1]) == 7


@given(secrets, st.integers(0, 3), st.integers(1, 2**250))
def test_a_wrong_share_never_gives_the_secret(secret: bytes, index: int, error: int) -> None:
    points = [1, 2, 3, 4]
    shares = shamir.split(secret, 4, points, os.urandom)
    wrong = (shamir.element(shares[points[index]]) + error) % shamir.PRIME
    shares[points[index]] = wrong.to_bytes(shamir.SHARE_BYTES, "big")
    with suppress(MalformedMessage):
        assert shamir.join(shares, shamir.coefficients(points)) != secret


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), shamir.PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_field_element_is_no_share(share: bytes) -> None:
    with pytest.raises(MalformedMessage, match="field"):
        shamir.join({1: share}, shamir.coefficients([1]))


def test_a_joined_value_above_every_secret_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="one secret"):
        shamir.join({1: (shamir.PRIME - 1).to_bytes(33, "big")}, shamir.coefficients([1]))


@pytest.mark.parametrize(
    ("threshold", "points"), [(0, [1]), (3, [1, 2]), (1, []), (1, [0, 1]), (2, [1, 1]), (1, [1, 1])]
)
def test_impossible_sharings_are_refused(threshold: int, points: list[int]) -> None:
    with pytest.raises(ConfigurationError):
        shamir.split(bytes(32), threshold, points, os.urandom)
