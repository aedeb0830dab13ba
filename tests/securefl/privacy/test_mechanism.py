from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from securefl.errors import BadInput
from securefl.privacy.mechanism import DPSGD, SGD, Budget, Mechanism, describe


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


@pytest.mark.parametrize("mechanism", [DPSGD(1.5, 0.25, 8, 0.7), SGD(0.25, 8)])
def test_a_mechanism_survives_its_encoding(mechanism: Mechanism) -> None:
    assert msgspec.json.decode(msgspec.json.encode(mechanism), type=Mechanism) == mechanism


@pytest.mark.parametrize(
    "text",
    [
        b'{"mechanism":"dpsgd","noise_multiplier":0,"sampling_rate":0.1,"steps":1}',
        b'{"mechanism":"dpsgd","noise_multiplier":1,"sampling_rate":0.1,"steps":1,"extra":1}',
        b'{"mechanism":"gdp","noise_multiplier":1,"sampling_rate":0.1,"steps":1}',
        b'{"noise_multiplier":1,"sampling_rate":0.1,"steps":1}',
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
    assert msgspec.json.encode(Budget(3, 1e-5)) == msgspec.json.encode(Budget(3.0, 1e-5))
