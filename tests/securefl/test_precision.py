"""How exact an encoding is and how noisy what it encodes: figures, each held against the thing itself."""

from __future__ import annotations

import math
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats
from torch import nn

from protocols.encoding import Encoding, Upload
from protocols.encoding.ckks import CKKS
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters
from protocols.errors import ConfigurationError
from securefl import protection
from securefl.data import Dataset
from securefl.plan import LocalOptimizer
from securefl.precision import Parameters, facts, update_noise, well_below
from securefl.privacy.mechanism import DPSGD, SGD, Mechanism
from securefl.training import train
from securefl.vector import flatten
from tests.protocols.cohort import ckks_key

# The chance that a statistical test here fails although all is well.
FALSE_ALARM = 1e-9


# ---- the noise of an update


def test_the_noise_of_an_update_is_that_of_its_last_step() -> None:
    mechanism = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3, clip=2.0)
    for momentum in (0.0, 0.9):
        found = update_noise(mechanism, LocalOptimizer(0.1, momentum), [100], [0.25])
        assert found == pytest.approx(0.25 * 0.1 * 4.0 * 2.0 / (0.5 * 100))


def test_of_all_clients_the_least_noise_counts() -> None:
    mechanism, optimizer = DPSGD(noise_multiplier=1.0, sampling_rate=1.0, steps=1), LocalOptimizer(1.0)
    assert update_noise(mechanism, optimizer, [10, 400, 20], [1.0, 1.0, 0.5]) == pytest.approx(1 / 400)
    assert update_noise(mechanism, optimizer, [10, 400, 20], [1.0, 1.0, 0.01]) == pytest.approx(0.01 / 20)


def test_without_noise_or_without_sizes_there_is_none() -> None:
    assert update_noise(SGD(1.0, 1), LocalOptimizer(1.0), [100], [1.0]) is None
    assert update_noise(DPSGD(1.0, 1.0, 1), LocalOptimizer(1.0), [], []) is None


def updates(mechanism: Mechanism, optimizer: LocalOptimizer, size: int, runs: int) -> np.ndarray:
    """The weights' updates of real training on records that have no influence on them: all features are zero."""
    module = nn.Linear(500, 2)
    data = Dataset(np.zeros((30, 500), np.float32), np.arange(30) % 2, size)
    weights = slice(0, module.weight.numel())
    assert (flatten(module)[weights] == module.weight.detach().numpy().reshape(-1)).all()
    return np.concatenate([train(module, data, mechanism, optimizer)[weights] for _ in range(runs)]).astype(np.float64)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_no_real_update_has_less_noise_than_is_said(steps: int, momentum: float) -> None:
    """After one step it has just as much. Samples are normal and independent, so that their squares' sum is chi-square:
    each bound is passed with chance 1e-9 where all is well.
    """
    mechanism, optimizer = DPSGD(3.0, 0.5, steps, clip=0.7), LocalOptimizer(0.2, momentum)
    said = update_noise(mechanism, optimizer, [80], [1.0])
    assert said is not None
    found = updates(mechanism, optimizer, size=80, runs=8)
    squares = float(np.sum((found / said) ** 2))
    assert stats.chi2.ppf(FALSE_ALARM, len(found)) < squares
    if steps == 1:
        assert squares < stats.chi2.isf(FALSE_ALARM, len(found))


@given(st.floats(1e-9, 1e9))
def test_rounding_to_a_step_well_below_the_noise_adds_less_than_a_thousandth_to_its_variance(noise: float) -> None:
    assert (well_below(noise) / 2) ** 2 < noise**2 / 1000


# ---- the figures of an encoding


def parameters() -> st.SearchStrategy[Parameters]:
    bounds, clients = st.floats(2**-10, 2**10), st.integers(1, 300)
    fixed = st.builds(FixedPoint, st.just(7), bounds, clients, st.sampled_from([24, 32]))
    return fixed | st.builds(CKKSParameters, st.just(7), bounds, clients, st.sampled_from([40, 48, 54]))


def fits(given: Parameters, clients: int) -> bool:
    """Whether as many updates can be summed with the same step in as many bits."""
    try:
        return replace(given, clients=clients).step <= given.step
    except ConfigurationError:
        return False


@given(parameters(), st.data())
def test_the_most_clients_of_a_sum_are_exact(given: Parameters, data: st.DataObject) -> None:
    most = facts(given).clients
    assert most >= given.clients
    assert fits(given, most) and not fits(given, most + 1)
    assert fits(given, data.draw(st.integers(given.clients, most)))
    assert not fits(given, data.draw(st.integers(most + 1, 4 * most)))


def test_the_figures_of_fixed_point_are_its_own() -> None:
    given = FixedPoint(1000, 8.0, 5, 24)
    found = facts(given)
    assert (found.bits, found.bytes_per_parameter, found.step) == (24, 3, given.step)
    assert (found.degree, found.security_bits) == (None, None)


@pytest.mark.parametrize(("bits", "item_bytes", "security"), [(32, 4, 256), (40, 5, 256), (48, 6, 256), (54, 7, 256)])
def test_the_figures_of_ckks_are_its_own(bits: int, item_bytes: int, security: int) -> None:
    """Security: 54 bits of modulus are below the 58 that the standard allows for 256 bits at degree 4096."""
    given = CKKSParameters(10_000, 8.0, 5, bits)
    found = facts(given)
    assert (found.bits, found.degree, found.security_bits) == (bits, 4096, security)
    assert found.bytes_per_parameter == 3 * 4096 * item_bytes / 10_000
    assert len(given.ring.pack(given.ring.zeros(given.layout.length))) == 3 * 4096 * item_bytes
    assert (found.step, found.error) == (given.step, given.error)


def test_the_figures_are_said_in_words() -> None:
    text = str(facts(FixedPoint(1000, 8.0, 5, 24)))
    for words in ("fixed point in 24 bits", "3 bytes a parameter", "steps of 7.6e-06", "by 1.8e-06", "for 7 clients"):
        assert words in text
    text = str(facts(CKKSParameters(10_000, 8.0, 5, 32)))
    words = ("degree 4096", "32-bit prime", "256-bit security", "4.915 bytes a parameter", "steps of 1.5e-05")
    for word in (*words, f"for {facts(CKKSParameters(1, 8.0, 5, 32)).clients} clients"):
        assert word in text


def mean_of(coder: Encoding, update: np.ndarray, clients: int) -> np.ndarray:
    """The decoded mean of so many clients' updates, all of them this one."""
    total, uploads = coder.layout.ring.zeros(coder.layout.length), []
    for number in range(clients):
        encoded = coder.encode(update, 1.0, b"session".ljust(32), f"c{number}", os.urandom)
        total += encoded.vector
        coder.layout.ring.reduce(total)
        uploads.append(Upload(b"session".ljust(32), f"c{number}", encoded.seed))
    return coder.decode(total, uploads) / clients


@pytest.mark.parametrize("kind", ["fixed point", "ckks"])
def test_the_error_is_that_of_the_worst_values_to_round(kind: str) -> None:
    """Halfway between two steps. Of 16384 coordinates the deviation is within 4.5 percent of the true one, but for a
    chance below 1e-9 (were they normal; sums of coins have lighter tails).
    """
    given = FixedPoint(16384, 4.0, 5, 16) if kind == "fixed point" else CKKSParameters(16384, 4.0, 5, 32)
    coder = given if isinstance(given, FixedPoint) else CKKS(given, ckks_key())
    worst = np.full(16384, 1.0 + given.step / 2)
    assert math.isclose((mean_of(coder, worst, 5) - worst).std(), facts(given).error, rel_tol=0.045)


def test_the_finest_step_that_is_named_can_be_asked_for() -> None:
    with pytest.raises(ConfigurationError) as refused:
        protection.CKKS(precision=1e-12).parameters(1, 5)
    finest = re.search(r"ask for ([0-9.e+-]+) at the finest", str(refused.value))
    assert finest
    protection.CKKS(precision=float(finest[1])).parameters(1, 5)
