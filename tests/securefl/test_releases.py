"""What one round under a plan is charged: all that it releases, with the noise that is really drawn."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.quantise import stochastic_round
from protocols.errors import ConfigurationError
from securefl import protection, releases
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, Plan, PrivacyTerms
from securefl.privacy.accountant import epsilon
from securefl.privacy.clientlevel import clipped
from securefl.privacy.mechanism import DPSGD, SGD, NoisedSum, Skellam, SkellamSum, cost
from securefl.privacy.noise import grid, noised
from tests.securefl.test_plan import plan

PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)
TEN = tuple(f"c{number}" for number in range(10))
KINDS = ("plain", "secagg", "ckks-unmasked", "ckks")


def level(noise: float = 2.0, adaptive: AdaptiveClip | None = None, **values: object) -> Plan:
    """Ten clients, seven of whom are enough."""
    given = {"protection": "secagg", "clients": TEN, "weights": (1.0,) * 10, "minimum": 7, "bound": 1.0}
    terms = PrivacyTerms(ClientLevel(noise, 3.0, adaptive), unit="client")
    return plan(**(given | {"privacy": terms, "dimension": 1000} | values))


def of_kind(kind: str, **values: object) -> Plan:
    return level(protection=kind, bits=54 if kind.startswith("ckks") else 32, **values)


# ---- which releases


@pytest.mark.parametrize(
    ("mechanism", "held_out", "expected", "private"),
    [
        (SGD(1.0, 1), None, (), False),
        (SGD(1.0, 1), HeldOut(None), (), False),
        (SGD(1.0, 1), HeldOut(5.0), (NoisedSum("metrics", 5.0, releases.METRICS_BOUND),), False),
        (PRIVATE, None, (PRIVATE,), True),
        (PRIVATE, HeldOut(None), (PRIVATE,), True),
        (PRIVATE, HeldOut(5.0), (PRIVATE, NoisedSum("metrics", 5.0, releases.METRICS_BOUND)), True),
    ],
)
def test_a_round_is_charged_all_that_it_releases_under_noise(
    mechanism: DPSGD | SGD, held_out: HeldOut | None, expected: tuple[object, ...], private: bool
) -> None:
    chosen = plan(mechanism=mechanism, privacy=PrivacyTerms(held_out=held_out))
    assert releases.releases(chosen) == expected
    assert releases.private(chosen) is private


def test_a_client_level_round_is_charged_its_update_and_the_count_for_the_clip_each_on_its_own() -> None:
    assert [one.released for one in skellams(level())] == ["update"]
    update, count = skellams(level(2.0, AdaptiveClip(0.5, 0.2, 10.0)))
    assert (update.released, update.noise_multiplier, update.dimension) == ("update", 2.0, 1000)
    assert (count.released, count.noise_multiplier, count.dimension) == ("clipped", 10.0, 1)
    assert releases.private(level())


def skellams(chosen: Plan) -> list[Skellam]:
    found = releases.releases(chosen)
    assert all(isinstance(one, Skellam) for one in found)
    return [one for one in found if isinstance(one, Skellam)]


def test_the_count_adds_little_to_what_a_round_costs() -> None:
    """At five times the noise: a twenty-fifth in Renyi terms, so a fiftieth of an epsilon, about."""
    plain = epsilon(releases.releases(level(2.0)), 1e-5, "client")
    adaptive = epsilon(releases.releases(level(2.0, AdaptiveClip(0.5, 0.2, 10.0))), 1e-5, "client")
    assert plain < adaptive < 1.03 * plain


# ---- the noise that is drawn is the noise that is charged


@pytest.mark.parametrize(
    ("kind", "colluders", "honest"),
    [("plain", 0, 1), ("ckks-unmasked", 0, 1), ("secagg", 0, 6), ("secagg", 1, 6), ("secagg", 2, 5), ("ckks", 2, 5)],
)
def test_only_the_noise_that_nobody_can_take_off_is_counted_on(kind: str, colluders: int, honest: int) -> None:
    """Without masks an update is seen alone. With them the fewest survivors' noise remains, less the colluders', and
    with none of those less that of whoever looks, who knows its own."""
    (update,) = skellams(of_kind(kind, colluders=colluders))
    assert update.honest == protection.honest(of_kind(kind, colluders=colluders)) == honest


@given(
    st.sampled_from(KINDS),
    st.sampled_from([16, 24, 32]),
    st.sampled_from([32, 40, 48, 54]),
    st.floats(1e-3, 1e3),
    st.none() | st.floats(1e-3, 1e3),
    st.integers(1, 10**6),
)
def test_the_charged_scale_is_that_of_the_encoding_with_room_for_all_noise(
    kind: str, fixed: int, sealed: int, noise: float, count: float | None, dimension: int
) -> None:
    adaptive = None if count is None else AdaptiveClip(0.5, 0.2, count)
    chosen = level(noise, adaptive, protection=kind, bits=sealed if "ckks" in kind else fixed, dimension=dimension)
    try:
        encoding = protection.parameters(chosen)
    except ConfigurationError:
        return  # no room: no such plan is taken part in
    update, *rest = skellams(chosen)
    assert update.scale == 1 / encoding.step
    share = len(chosen.clients) / update.honest
    together = [one.variance * share * encoding.step**2 for one in (update, *rest)]
    assert max(together) <= encoding.noise**2 * (1 + 1e-9)
    if rest:
        # Half a clip is what one client changes the count by.
        assert rest[0].scale == update.scale / 2
        assert rest[0].variance == pytest.approx((rest[0].noise_multiplier * 0.5 / encoding.step) ** 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_that_a_draft_chooses_are_those_of_the_charge(kind: str) -> None:
    """The noise decides the scale, so that it must be the plan's noise wherever a scale is derived."""
    quiet, loud = of_kind(kind), msgspec.structs.replace(of_kind(kind), privacy=level(500.0).privacy)
    scales = [skellams(chosen)[0].scale for chosen in (quiet, loud)]
    assert scales == [1 / protection.parameters(chosen).step for chosen in (quiet, loud)]
    assert kind.startswith("ckks") or scales[1] < scales[0]


@given(
    arrays(np.float32, st.integers(1, 40), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([16, 32]),
    st.binary(min_size=1, max_size=8),
)
def test_however_an_update_is_rounded_it_is_within_the_charged_sensitivities(
    update: NDArray[np.float32], bits: int, coins: bytes
) -> None:
    """Rounding may lengthen a vector: at few bits and many coordinates by much."""
    chosen = level(4.0, bits=bits, dimension=len(update))
    (release,) = skellams(chosen)
    charged = cost(release, "client")
    encoding, (vector, _) = protection.parameters(chosen), clipped(update, 1e-3)
    assert isinstance(charged, SkellamSum) and isinstance(encoding, FixedPoint)
    ring = encoding.encode(vector, 1.0, b"", "c", lambda count: (coins * count)[:count]).vector
    levels = encoding.decode(ring, ()) * encoding.scale
    assert np.abs(levels).sum() <= charged.l1
    assert np.linalg.norm(levels) <= charged.l2


def test_the_longest_rounding_is_longer_than_the_clip() -> None:
    """Why the charge has a term for it: every coordinate of a long update is rounded up."""
    chosen = level(4.0, bits=16, dimension=20_000)
    (release,) = skellams(chosen)
    encoding, (vector, _) = protection.parameters(chosen), clipped(np.ones(20_000, np.float32), 1e-3)
    assert isinstance(encoding, FixedPoint)
    up = stochastic_round(vector, 1.0, encoding.scale, np.full(20_000, 2**32 - 1, np.uint32))
    charged = cost(release, "client")
    assert isinstance(charged, SkellamSum)
    assert 1.08 * release.scale < np.linalg.norm(up) <= charged.l2


def test_a_record_or_a_patient_moves_an_update_by_two_clips_and_a_client_by_one() -> None:
    """Zero-out against add-or-remove: from one vector to another, not to zeros."""
    (release,) = skellams(level())
    by_unit = [cost(release, unit) for unit in ("client", "record", "patient")]
    lengths = [one.l2 for one in by_unit if isinstance(one, SkellamSum)]
    assert lengths == [lengths[0], 2 * lengths[0], 2 * lengths[0]]


# ---- metrics


@given(
    arrays(np.float64, 2, elements=st.floats(0, 1e6)),
    arrays(np.float64, 2, elements=st.floats(0, 1)),
)
def test_a_record_moves_the_rounded_sums_by_the_bound_at_most(
    sums: NDArray[np.float64], adds: NDArray[np.float64]
) -> None:
    """Rounding to the grid of the noise included. ``noised`` without noise is that rounding."""
    step = grid(releases.METRICS_BOUND, 2)
    before, after = (noised(total, 0.0, step) for total in (sums, sums + adds))
    assert np.linalg.norm(after - before) <= releases.METRICS_BOUND
    assert 1.0001 * math.sqrt(2) > releases.METRICS_BOUND
