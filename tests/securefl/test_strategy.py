from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from securefl import global_state
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, LocalOptimizer, Plan, PrivacyTerms
from securefl.privacy.mechanism import SGD
from securefl.strategy import step


def plan(weights: tuple[float, ...]) -> Plan:
    return Plan(
        job="t",
        protection="plain",
        clients=("a", "b", "c"),
        weights=weights,
        bound=1.0,
        minimum=3,
        threshold=None,
        rounds=10,
        mechanism=SGD(1.0, 1),
        optimizer=LocalOptimizer(0.1),
        architecture="",
        dimension=2,
        model_seed=0,
    )


def test_the_model_moves_by_the_weighted_mean() -> None:
    updates = {"a": np.array([1.0, 0.0]), "c": np.array([0.0, 4.0])}
    weights = {"a": 1.0, "c": 0.25}
    total = sum(weights[name] * updates[name] for name in updates)
    moved = step(plan((1.0, 0.5, 0.25)), np.array([10.0, 10.0], np.float32), total, ["a", "c"])
    np.testing.assert_array_equal(moved, np.float32([10 + 1 / 1.25, 10 + 1 / 1.25]))


def test_the_order_of_contributors_does_not_change_a_bit() -> None:
    weighted, model = plan((0.1, 0.2, 0.3)), np.array([0.1, 0.2], np.float32)
    total = np.array([0.3, 0.7])
    one = step(weighted, model, total, ["a", "b", "c"])
    assert one.tobytes() == step(weighted, model, total, ["c", "a", "b"]).tobytes()


def test_the_step_is_the_same_to_the_bit_on_every_machine() -> None:
    # The golden bytes were computed with exact rationals, rounded once
    # to float64 after each operation and then to float32.
    moved = step(
        plan((0.1, 0.7, 1.0)),
        np.array([1 / 3, -2 / 7], np.float32),
        np.array([0.123456789, -0.987654321]),
        ["a", "b", "c"],
    )
    assert moved.astype("<f4").tobytes().hex() == "84c8cd3ef89b55bf"


# ---- client-level privacy


def level_plan(clients: int = 3, adaptive: AdaptiveClip | None = None, clip: float = 1.0, kind: str = "secagg") -> Plan:
    names = tuple(f"c{number:03}" for number in range(clients))
    terms = PrivacyTerms(ClientLevel(1.0, clip, adaptive), unit="client")
    return msgspec.structs.replace(
        plan((1.0, 1.0, 1.0)), protection=kind, clients=names, weights=(1.0,) * clients, privacy=terms
    )


def adapted(chosen: Plan, vector: NDArray[np.float32], fraction: float, contributors: int | None = None) -> float:
    """The clip after a round in which this fraction of the contributors was within the clip."""
    names = chosen.clients[:contributors]
    total = np.array([0.0, 0.0, len(names) * (fraction - 0.5)])
    return global_state.clip(chosen, step(chosen, vector, total, names))


@pytest.mark.parametrize("contributors", [1, 2, 3])
def test_client_level_updates_are_divided_by_the_number_of_the_plan_s_clients(contributors: int) -> None:
    """Whoever contributed: a divisor that follows them would have one client change what the others' updates do."""
    chosen = level_plan(clip=4.0)
    moved = step(chosen, np.array([1.0, 1.0], np.float32), np.array([0.75, -1.5]), chosen.clients[:contributors])
    np.testing.assert_array_equal(moved, np.float32([1 + 4 * 0.75 / 3, 1 - 4 * 1.5 / 3]))


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [1e-3, 30.0])
def test_an_adaptive_clip_moves_to_the_quantile_of_the_norms(quantile: float, start: float) -> None:
    norms = np.exp(np.random.default_rng(1).normal(0, 1, 200))
    chosen = level_plan(200, AdaptiveClip(quantile, 0.2, 1.0), start)
    vector = global_state.first(chosen, np.zeros(2, np.float32))
    away = [abs(math.log(start / np.quantile(norms, quantile)))]
    for _ in range(400):
        within = (norms <= global_state.clip(chosen, vector)).mean()
        total = np.array([0.0, 0.0, 200 * (within - 0.5)])
        vector = step(chosen, vector, total, frozenset(chosen.clients))
        away.append(abs(math.log(global_state.clip(chosen, vector) / np.quantile(norms, quantile))))
    assert max(away[-50:]) < 0.05
    assert max(np.diff(away)) < 0.05  # no step leads away, but for those across


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-6, 1), st.floats(1e-6, 1e6))
def test_an_adaptive_clip_is_multiplied_by_what_the_paper_says(
    fraction: float, quantile: float, rate: float, start: float
) -> None:
    """exp(-rate * (fraction - quantile)), Andrew et al. 2021, algorithm 1."""
    chosen = level_plan(3, AdaptiveClip(quantile, rate, 1.0), start)
    vector = global_state.first(chosen, np.zeros(2, np.float32))
    expected = float(np.float32(start)) * math.exp(-rate * (fraction - quantile))
    found = adapted(chosen, vector, fraction)
    assert found == pytest.approx(expected, rel=1e-5)
    assert np.float32(found).tobytes() == np.float32(adapted(chosen, vector, fraction)).tobytes()


@pytest.mark.parametrize("contributors", [1, 2, 3])
def test_the_fraction_is_that_of_those_who_contributed(contributors: int) -> None:
    """Dropouts are not counted as updates beyond the clip, which would drive it up."""
    chosen = level_plan(3, AdaptiveClip(0.5, 0.5, 1.0))
    vector = global_state.first(chosen, np.zeros(2, np.float32))
    assert adapted(chosen, vector, 1.0, contributors) == adapted(chosen, vector, 1.0)


@pytest.mark.parametrize("total", [-1e9, -0.51 * 3, 0.51 * 3, 1e9])
def test_a_count_that_noise_carries_beyond_all_or_nothing_counts_as_that(total: float) -> None:
    chosen = level_plan(3, AdaptiveClip(0.5, 0.5, 1.0))
    vector = global_state.first(chosen, np.zeros(2, np.float32))
    moved = step(chosen, vector, np.array([0.0, 0.0, total]), chosen.clients)
    assert global_state.clip(chosen, moved) == adapted(chosen, vector, float(total > 0))


@pytest.mark.parametrize("start", [2.0**-30, 1.0, 2.0**30])
@pytest.mark.parametrize(("quantile", "fraction", "farthest"), [(1.0, 0.0, 2.0**20), (0.0, 1.0, 2.0**-20)])
def test_an_adaptive_clip_stays_within_a_factor_of_2_to_the_20(
    start: float, quantile: float, fraction: float, farthest: float
) -> None:
    chosen = level_plan(3, AdaptiveClip(quantile, 1.0, 1.0), start)
    vector = global_state.first(chosen, np.zeros(2, np.float32))
    for _ in range(30):
        total = np.array([0.0, 0.0, 3 * (fraction - 0.5)])
        vector = step(chosen, vector, total, chosen.clients)
        global_state.check(chosen, vector)
    assert global_state.clip(chosen, vector) == start * farthest


def test_an_adaptive_clip_is_the_same_to_the_bit_on_every_machine() -> None:
    # The golden bytes were computed with exact rationals, rounded to float64 after each operation, and not with exp().
    chosen = level_plan(3, AdaptiveClip(0.3, 0.7, 1.0), 1.7)
    vector = global_state.first(chosen, np.zeros(2, np.float32))
    moved = step(chosen, vector, np.array([0.0, 0.0, 0.1234567]), chosen.clients)
    assert moved[2:].astype("<f4").tobytes().hex() == "faccb73f"


# ---- metrics


@pytest.mark.parametrize(
    ("total", "accuracy", "loss"),
    [((0.875, 0.4375), 0.5, 1.0), ((-9.0, -9.0), 0.0, 0.0), ((9.0, 9.0), 1.0, 4.0)],
    ids=["weighted mean", "noise below", "noise above"],
)
def test_metrics_are_weighted_means_within_what_they_can_be(
    total: tuple[float, float], accuracy: float, loss: float
) -> None:
    terms = PrivacyTerms(held_out=HeldOut(1.0, loss_bound=4.0))
    chosen = msgspec.structs.replace(plan((1.0, 0.5, 0.25)), privacy=terms)
    start = global_state.first(chosen, np.zeros(2, np.float32))
    moved = step(chosen, start, np.array([0.0, 0.0, *total]), chosen.clients)
    assert global_state.measured(chosen, moved) == global_state.Measured(accuracy, loss)
