from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.errors import BadInput
from securefl.privacy.mechanism import (
    DPSGD,
    NEIGHBOURS,
    SGD,
    Budget,
    Mechanism,
    NoisedSum,
    SampledGaussian,
    Skellam,
    SkellamSum,
    Unit,
    cost,
    describe,
)

UNITS: list[Unit] = ["record", "patient", "client"]


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: DPSGD(noise_multiplier=0, sampling_rate=0.1, steps=1), "noise_multiplier is 0"),
        (lambda: DPSGD(noise_multiplier=-1, sampling_rate=0.1, steps=1), "noise_multiplier is -1"),
        (lambda: DPSGD(noise_multiplier=math.nan, sampling_rate=0.1, steps=1), "noise_multiplier is nan"),
        (lambda: DPSGD(noise_multiplier=math.inf, sampling_rate=0.1, steps=1), "noise_multiplier is inf"),
        (lambda: DPSGD(noise_multiplier=1, sampling_rate=1.5, steps=1), "sampling_rate is 1.5: .* at most 1"),
        (lambda: DPSGD(noise_multiplier=1, sampling_rate=0.1, steps=0), "steps is 0"),
        (lambda: DPSGD(noise_multiplier=1, sampling_rate=0.1, steps=1, clip=0), "clip is 0"),
        (lambda: NoisedSum("metrics", noise_multiplier=0, bound=1), "noise_multiplier is 0"),
        (lambda: NoisedSum("metrics", noise_multiplier=1, bound=math.inf), "bound is inf"),
        (lambda: Skellam("update", noise_multiplier=0, scale=8, dimension=3, honest=2), "noise_multiplier is 0"),
        (lambda: Skellam("update", noise_multiplier=1, scale=-8, dimension=3, honest=2), "scale is -8"),
        (lambda: Skellam("update", noise_multiplier=1, scale=8, dimension=0, honest=2), "dimension is 0"),
        (lambda: Skellam("update", noise_multiplier=1, scale=8, dimension=3, honest=0), "honest is 0"),
        (lambda: SGD(sampling_rate=0, steps=1), "sampling_rate is 0"),
        (lambda: SGD(sampling_rate=0.5, steps=-3), "steps is -3"),
        (lambda: Budget(epsilon=0, delta=1e-5), "epsilon is 0"),
        (lambda: Budget(epsilon=3, delta=1.0), "delta is 1.0"),
        (lambda: Budget(epsilon=3, delta=0), "delta is 0"),
    ],
)
def test_values_that_guarantee_nothing_are_refused_at_construction(build: Callable[[], Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        build()


@pytest.mark.parametrize(
    "mechanism",
    [DPSGD(1.5, 0.25, 8, 0.7), NoisedSum("statistics", 4, 2.5), Skellam("clipped", 1.5, 2**20, 1, 7), SGD(0.25, 8)],
)
def test_a_mechanism_survives_its_encoding(mechanism: Mechanism) -> None:
    assert msgspec.json.decode(msgspec.json.encode(mechanism), type=Mechanism) == mechanism


@pytest.mark.parametrize(
    "text",
    [
        b'{"mechanism":"dpsgd","noise_multiplier":0,"sampling_rate":0.1,"steps":1}',
        b'{"mechanism":"dpsgd","noise_multiplier":1,"sampling_rate":0.1,"steps":1,"extra":1}',
        b'{"mechanism":"gdp","noise_multiplier":1,"sampling_rate":0.1,"steps":1}',
        b'{"noise_multiplier":1,"sampling_rate":0.1,"steps":1}',
        b'{"mechanism":"noised-sum","released":"weights","noise_multiplier":1,"bound":1}',
        b'{"mechanism":"skellam","released":"update","noise_multiplier":1,"scale":8,"dimension":3}',
    ],
)
def test_an_encoding_that_is_not_a_mechanism_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Mechanism)


def test_a_description_names_the_mechanism_and_every_field() -> None:
    assert describe(DPSGD(1.5, 0.25, 8)) == {
        "mechanism": "DPSGD",
        "noise_multiplier": 1.5,
        "sampling_rate": 0.25,
        "steps": 8,
        "clip": 1.0,
    }


def test_equal_mechanisms_have_equal_encodings() -> None:
    assert msgspec.json.encode(DPSGD(4, 1, 3, clip=1)) == msgspec.json.encode(DPSGD(4.0, 1.0, 3, clip=1.0))
    assert msgspec.json.encode(Skellam("update", 1, 8, 3, 2)) == msgspec.json.encode(Skellam("update", 1.0, 8.0, 3, 2))
    assert msgspec.json.encode(Budget(3, 1e-5)) == msgspec.json.encode(Budget(3.0, 1e-5))


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_record_level_noise_is_charged_in_multiples_of_its_sensitivity(unit: Unit) -> None:
    assert cost(DPSGD(1.5, 0.25, 8, clip=0.1), unit) == SampledGaussian(1.5, 0.25, 8)
    assert cost(NoisedSum("metrics", 4, bound=2.5), unit) == SampledGaussian(4, 1, 1)


@pytest.mark.parametrize("mechanism", [DPSGD(1.5, 0.25, 8), NoisedSum("metrics", 4, 2.5)])
def test_record_level_noise_cannot_be_charged_to_a_client(mechanism: Mechanism) -> None:
    with pytest.raises(BadInput, match="hides one record and the unit of this data set is a whole client"):
        cost(mechanism, "client")


@pytest.mark.parametrize("unit", UNITS)
def test_what_has_no_noise_cannot_be_charged(unit: Unit) -> None:
    with pytest.raises(BadInput, match="SGD has no epsilon: no budget covers it"):
        cost(SGD(0.25, 8), unit)


def test_every_unit_has_its_neighbours() -> None:
    assert list(NEIGHBOURS) == UNITS


def test_client_level_noise_is_charged_in_integer_steps_with_what_rounding_adds() -> None:
    # 1000 long and 16 for the rounding of 256 coordinates; l1 from l2 by the root of the dimension.
    mechanism = Skellam("update", 2.0, scale=1000.0, dimension=256, honest=5)
    assert cost(mechanism, "client") == SkellamSum(16 * 1016, 1016, 2000.0**2, 1)
    # Of few integer steps in many dimensions: l1 from the square of l2.
    assert cost(Skellam("update", 2.0, 2.0, 400, 5), "client") == SkellamSum(22 * 20, 22, 16, 1)
    assert cost(Skellam("update", 2.0, 2.0, 1600, 5), "client") == SkellamSum(42 * 40, 42, 16, 1)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_record_moves_a_clipped_update_twice_as_far_as_its_client_does(unit: Unit) -> None:
    mechanism = Skellam("update", 2.0, scale=1000.0, dimension=256, honest=5)
    assert cost(mechanism, unit) == SkellamSum(16 * 2032, 2032, 2000.0**2, 1)


@given(seed=st.integers(0, 2**32), dimension=st.integers(1, 300), scale=st.floats(0.5, 1e6), spread=st.floats(0.01, 20))
def test_no_rounded_update_exceeds_the_sensitivities(seed: int, dimension: int, scale: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    # From vectors of one large coordinate to flat ones; then away from zero, the worst that rounding does.
    vector = rng.standard_normal(dimension) * np.exp(spread * rng.standard_normal(dimension))
    vector *= scale / np.linalg.norm(vector)
    rounded = np.sign(vector) * np.ceil(np.abs(vector))
    charged = cost(Skellam("update", 1.0, scale, dimension, honest=1), "client")
    assert isinstance(charged, SkellamSum)
    assert np.linalg.norm(rounded) <= charged.l2 * (1 + 1e-12)
    assert np.abs(rounded).sum() <= charged.l1 * (1 + 1e-12)
