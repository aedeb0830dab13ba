"""A seed repeats a run's noise, and takes its guarantee away: nobody gets one who did not ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from securefl import DPSGD, SGD
from securefl.client import Client
from securefl.errors import Refused
from securefl.plan import ClientLevel, PrivacyTerms
from securefl.privacy.mechanism import Budget, Training
from securefl.privacy.noise import Random, gaussian, skellam
from securefl.privacy.simulation import seeded
from securefl.round import enrol
from tests.securefl.federation import NAMES, client, direct, final_model, model, records, server

BUDGET = Budget(3.0, 1e-5)
LARGE = Budget(100.0, 1e-5)
PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)
SAMPLED = SGD(sampling_rate=0.5, steps=3)
SIMULATED = PrivacyTerms(simulated=True)
NAMED = st.lists(st.integers(0, 99) | st.text("abc", max_size=3), max_size=4)


@given(st.integers(0, 2**63 - 1), NAMED, st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_a_seed_repeats_itself_for_the_same_names(seed: int, names: list[object], counts: list[int]) -> None:
    one, other = seeded(seed, *names), seeded(seed, *names)
    assert [one(count) for count in counts] == [other(count) for count in counts]


@given(st.tuples(st.integers(0, 9), NAMED), st.tuples(st.integers(0, 9), NAMED))
def test_other_names_or_seeds_give_other_bytes(one: tuple[int, list[object]], other: tuple[int, list[object]]) -> None:
    """False alarm: 2^-256."""
    same = (one[0], [*map(str, one[1])]) == (other[0], [*map(str, other[1])])
    assert (seeded(one[0], *one[1])(32) == seeded(other[0], *other[1])(32)) is same


def test_no_two_calls_give_the_same_bytes_and_all_have_the_length_asked_for() -> None:
    random = seeded(7, "ada", 1)
    given = [random(32) for _ in range(1000)]
    assert len(set(given)) == 1000
    assert [len(random(count)) for count in (0, 1, 17, 5000)] == [0, 1, 17, 5000]


def test_the_bytes_of_a_seed_never_change() -> None:
    """Else a simulation could not be repeated with a later version."""
    assert seeded(1, "ada", 2, 3, "noise")(16).hex() == GOLDEN


GOLDEN = "a334e3c2ff5134e0d6d016fd276cba45"


@pytest.mark.attack("noise taken off by who knows the seed")
def test_who_knows_the_seed_takes_the_noise_off_exactly_and_only_then() -> None:
    """What a seed does to a guarantee, and why outputs say so. False alarm: 2^-20 a value without the seed."""
    secret = np.arange(64)
    released = secret + skellam(64, 2.0**40, seeded(5, "ada", 1, 1, "noise"))
    assert (released - skellam(64, 2.0**40, seeded(5, "ada", 1, 1, "noise")) == secret).all()
    fresh = secret + skellam(64, 2.0**40)
    assert (fresh - skellam(64, 2.0**40, seeded(5, "ada", 1, 1, "noise")) != secret).any()


# ---- whole runs


def after_a_round(
    seed: int | None,
    mechanism: Training,
    cell: str = "secagg",
    privacy: PrivacyTerms = SIMULATED,
    budget: Budget | None = None,
) -> NDArray[np.float32]:
    coordinator = server(cell, mechanism, privacy=privacy)
    owners = [client(name, budget, seed=seed) for name in NAMES]
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    coordinator.round(direct(owners))
    return final_model(coordinator, owners)


@pytest.mark.parametrize(("mechanism", "budget"), [(SAMPLED, None), (PRIVATE, BUDGET)], ids=["sgd", "dp-sgd"])
def test_two_simulations_with_one_seed_end_in_one_model_and_no_two_without(
    mechanism: Training, budget: Budget | None
) -> None:
    one, again = (after_a_round(3, mechanism, budget=budget) for _ in range(2))
    # To what the encoding rounds: its coins come with the session's keys, which are never from a seed.
    np.testing.assert_allclose(one, again, atol=2.0**-20)
    first, second = (after_a_round(None, mechanism, budget=budget) for _ in range(2))
    assert np.abs(first - second).max() > 1e-4 < np.abs(first - one).max()


@pytest.mark.parametrize("cell", ["plain", "ckks"])
def test_a_simulation_repeats_its_samples_and_noise_under_every_protection(cell: str) -> None:
    """To what encoding rounds: below 2^-20 here."""
    one, again = (after_a_round(3, PRIVATE, cell, budget=BUDGET) for _ in range(2))
    np.testing.assert_allclose(one, again, atol=2.0**-20)


def test_a_simulation_repeats_client_level_noise() -> None:
    """To what encoding rounds; the noise has a deviation of 5 clips."""
    level = PrivacyTerms(ClientLevel(5.0, 1.0), unit="client", simulated=True)
    one, again = (after_a_round(3, SAMPLED, privacy=level, budget=LARGE) for _ in range(2))
    np.testing.assert_allclose(one, again, atol=2.0**-15)
    other = after_a_round(None, SAMPLED, privacy=level, budget=LARGE)
    assert np.abs(other - one).max() > 0.01


def test_a_client_with_a_seed_refuses_a_plan_that_is_no_simulation() -> None:
    coordinator, owners = server(), [client("ada", seed=1), *(client(name) for name in NAMES[1:])]
    with pytest.raises(Refused, match="give it no seed"):
        enrol(coordinator, owners)


@pytest.mark.parametrize(("seed", "said"), [(1, True), (None, False)])
def test_what_a_seed_made_is_charged_as_simulated(tmp_path: Path, seed: int | None, said: bool) -> None:
    """Also in a plan that allows seeds, whoever has none says so."""
    coordinator = server("secagg", PRIVATE, privacy=SIMULATED)
    owners = [client(name, BUDGET, tmp_path, seed=seed) for name in NAMES]
    enrol(coordinator, owners)
    coordinator.round(direct(owners))
    for owner in owners:
        assert owner.account.simulated is said
        assert [entry.simulated for entry in owner.account.ledger.entries()] == [said]


# ---- no seed without saying so


def fixed(name: str) -> Random:
    """The worst generator that a caller can hand in: always the same bytes."""
    return lambda count: (name.encode() * count)[:count]


def with_fixed_random(mechanism: Training, privacy: PrivacyTerms) -> NDArray[np.float32]:
    owners = [Client(name, records(0), model, budget=LARGE, random=fixed(name)) for name in NAMES]
    coordinator = server("plain", mechanism, privacy=privacy)
    enrol(coordinator, owners)
    coordinator.round(direct(owners))
    return final_model(coordinator, owners)


@pytest.mark.parametrize(
    ("mechanism", "privacy"),
    [(PRIVATE, PrivacyTerms()), (SAMPLED, PrivacyTerms(ClientLevel(5.0, 1.0), unit="client"))],
    ids=["dp-sgd", "client-level"],
)
def test_a_generator_that_repeats_itself_reaches_keys_and_rounding_but_no_noise(
    mechanism: Training, privacy: PrivacyTerms
) -> None:
    """``random`` is for tests of the protocol. What is left of a difference between two runs is noise and samples."""
    one, other = (with_fixed_random(mechanism, privacy) for _ in range(2))
    assert np.abs(one - other).max() > 1e-3


def test_noise_reads_the_operating_system_unless_it_is_given_something_else() -> None:
    """False alarm: 2^-100."""
    assert (gaussian(8, 1.0) != gaussian(8, 1.0)).any()
