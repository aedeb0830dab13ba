"""The named tests on arrays: what is as declared, and each way not to be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from securefl.audit.checks import Check, Declared, all_of, canary_length, fresh_noise, noise_scale, own_noise, sampling
from securefl.errors import BadInput
from tests.securefl.audit.bounds.synthetic import most_alarms

Floats = NDArray[np.float64]

CANARIES, ROUNDS = 60, 12
WHOLE = Declared(2.0, (1.0,), 1.0)
SAMPLED = Declared(0.5, (1.0,), 0.25)
MOMENTUM = Declared(0.5 * float(np.hypot(1.5, 1.0)), (1.5, 1.0), 0.25)
CHARGED = {"s0": (ROUNDS, ROUNDS)}
RUNS = 200


class Seen:
    """What an adversary sees of a mechanism as ``declared``, which a test then changes."""

    def __init__(self, declared: Declared, seed: int = 0, canaries: int = CANARIES) -> None:
        generator = np.random.default_rng(seed)
        shape = canaries, ROUNDS
        self.declared = declared
        self.coins = np.arange(canaries) % 2 == 0
        self.noise: Floats = declared.noise * generator.standard_normal(shape)
        self.known: Floats = declared.noise * generator.standard_normal(shape)
        parts = {name: declared.noise * generator.standard_normal(size) for name, size in (("a", 50), ("b", 3))}
        self.elsewhere = {name: (float(part @ part), part.size) for name, part in parts.items()}
        self.part: Floats = np.zeros(shape)
        for weight in declared.weights:
            self.part += weight * (generator.random(shape) < declared.rate)

    @property
    def scores(self) -> Floats:
        return self.noise + self.coins[:, None] * self.part

    def checks(self, charges: dict[str, tuple[int, int]] = CHARGED) -> dict[str, Check]:
        found = all_of(self.scores, self.coins, {"s1": self.known}, self.declared, charges, self.elsewhere)
        return {check.name: check for check in found}

    def failed(self) -> list[str]:
        return [check.name for check in self.checks().values() if check.failed]


@pytest.mark.parametrize("declared", [WHOLE, SAMPLED, MOMENTUM])
def test_what_is_as_declared_is_accused_as_often_as_the_level_says(declared: Declared) -> None:
    found = [Seen(declared, seed).checks() for seed in range(RUNS)]
    for name in found[0]:
        values = np.array([one[name].p for one in found])
        for level in (0.01, 0.1):
            # With p-values that hold, each assertion fails with a probability below 1e-6.
            assert np.sum(values < level) <= most_alarms(RUNS, level), name
        assert np.all((values >= 0) & (values <= 1))
        if name != "charges":
            assert np.sum(values < 0.5) > RUNS / 3, name  # and they are not simply large
    assert sum(any(check.failed for check in one.values()) for one in found) <= most_alarms(RUNS, 0.01)


def test_the_level_is_split_among_the_tests_that_scores_allow() -> None:
    whole, sampled = Seen(WHOLE).checks(), Seen(SAMPLED).checks()
    expected = ["charges", "noise scale", "noise everywhere", "canary length", "fresh noise", "own noise"]
    assert list(whole) == expected
    assert [*whole, "sampling"] == list(sampled)
    assert {check.level for check in whole.values()} == {0.01 / 6}
    assert {check.level for check in sampled.values()} == {0.01 / 7}


# Each of what follows is some twenty deviations off: it is found with a probability that no test will ever miss.


def test_too_little_noise_is_found_by_its_scale() -> None:
    seen = Seen(WHOLE)
    seen.noise *= 0.5
    assert seen.failed() == ["noise scale"]
    seen.noise *= 4  # more than declared harms nobody
    assert seen.failed() == []


def test_canaries_that_are_longer_than_a_clip_are_found_by_their_length() -> None:
    for declared in (WHOLE, SAMPLED, MOMENTUM):
        seen = Seen(declared)
        seen.part *= 3
        assert "canary length" in seen.failed()
    seen = Seen(WHOLE)
    seen.part *= 0.5
    assert seen.failed() == []


def test_noise_that_repeats_itself_is_found_by_its_freshness() -> None:
    seen = Seen(WHOLE, canaries=1000)  # enough for its scale to be right, in spite of it
    seen.noise[:] = seen.noise[:, :1]
    assert seen.failed() == ["fresh noise"]
    seen.noise += 1e-6 * Seen(WHOLE, 1, canaries=1000).noise  # rounded apart
    assert seen.failed() == ["fresh noise"]


def test_noise_that_clients_share_is_found_by_its_owner() -> None:
    seen = Seen(WHOLE)
    seen.known = 0.3 * seen.noise
    assert seen.failed() == ["own noise"]


def test_records_that_are_shuffled_are_found_by_their_sampling() -> None:
    for declared in (SAMPLED, Declared(0.5, (1.0, 1.0), 0.1)):
        seen = Seen(declared, canaries=400)
        rounds = round(1 / declared.rate / len(declared.weights))
        generator = np.random.default_rng(0)
        seen.part = np.zeros_like(seen.part)
        for window in range(ROUNDS // rounds):
            places = window * rounds + generator.integers(rounds, size=len(seen.part))
            seen.part[np.arange(len(seen.part)), places] = 1
        assert seen.failed() == ["sampling"]
        assert seen.checks()["sampling"].p < 1e-4  # small enough to refute a claim at 99.9 %


def test_the_p_values_of_sampling_are_as_spread_as_they_should_be() -> None:
    coins_only = Declared(0.05, (1.0,), 0.5)  # of which a variance varies half as much as of Gaussians
    values = [
        sampling(seen.scores[seen.coins], seen.scores[~seen.coins], coins_only)
        for seen in (Seen(coins_only, seed) for seed in range(600))
    ]
    # A standard deviation of 600 is within 5 of its own from 1, but for a probability of 1e-6.
    assert abs(np.std(stats.norm.ppf(values)) - 1) < 5 / 1200**0.5


def test_a_round_that_no_ledger_has_is_found_by_the_charges() -> None:
    seen = Seen(WHOLE)
    assert not seen.checks({"s0": (ROUNDS + 2, ROUNDS)})["charges"].failed  # attempts that failed are charged, too
    found = seen.checks({"s0": (ROUNDS, ROUNDS), "s1": (ROUNDS - 1, ROUNDS)})["charges"]
    assert (found.p, found.failed) == (0.0, True)
    assert str(found) == "charges: p = 0, FAILED (each round that was contributed to is charged)"


# ---- little to go by


def test_canaries_that_are_seen_as_less_than_they_are_accuse_no_sampling() -> None:
    """As where the model moves on within a round. Without scaling, what sampling adds would be missed in every run."""
    steps = Declared(0.3, (1.0,) * 8, 0.25)
    found = []
    for seed in range(RUNS):
        seen = Seen(steps, seed, canaries=400)
        seen.part *= 0.8
        found.append(seen.checks()["sampling"].p)
    # False alarm: below 1e-6.
    assert np.sum(np.array(found) < 0.01) <= most_alarms(RUNS, 0.01)


@pytest.mark.parametrize("there", [True, False])
def test_without_canaries_in_or_out_the_other_tests_remain(there: bool) -> None:
    seen = Seen(SAMPLED)
    seen.coins[:] = there
    expected = ["charges", "noise everywhere"]
    if not there:
        expected = ["charges", "noise scale", "noise everywhere", "fresh noise", "own noise"]
    assert list(seen.checks()) == expected
    assert seen.failed() == []


@pytest.mark.parametrize("canaries", range(5))
@pytest.mark.parametrize("rounds", [1, 2, ROUNDS])
def test_any_number_of_canaries_and_rounds_has_p_values(canaries: int, rounds: int) -> None:
    for declared in (WHOLE, SAMPLED):
        seen = Seen(declared, canaries=canaries)
        found = all_of(seen.scores[:, :rounds], seen.coins, {"s1": seen.known[:, :rounds]}, declared, CHARGED, {})
        assert all(0 <= check.p <= 1 for check in found)
        assert not any(check.failed for check in found)


def test_a_parameter_without_noise_is_found_beside_others_that_have_it_and_records_that_move_them_accuse_nobody() -> (
    None
):
    for declared in (WHOLE, SAMPLED):
        seen = Seen(declared)
        seen.elsewhere["a"] = 1e6, 50
        assert seen.failed() == []
        seen.elsewhere["b"] = 1e-9, 3
        assert seen.failed() == ["noise everywhere"]


def test_no_noise_at_all_is_too_little_noise_and_nothing_else() -> None:
    for declared in (WHOLE, SAMPLED):
        seen = Seen(declared)
        seen.noise[:] = 0
        assert seen.checks()["noise scale"].p == 0
        assert seen.failed() == ["noise scale"]
        seen.known[:] = 0
        assert seen.failed() == ["noise scale"]


def test_known_noise_that_is_none_resembles_nothing() -> None:
    seen = Seen(WHOLE)
    outside = seen.noise[~seen.coins]
    assert own_noise(outside, {"s1": np.zeros_like(outside)}) == 1
    assert own_noise(outside, {"s1": np.zeros_like(outside), "s2": -outside}) < 1e-9


def test_single_tests_are_those_of_all() -> None:
    seen, found = Seen(SAMPLED), Seen(SAMPLED).checks()
    inside, outside = seen.scores[seen.coins], seen.scores[~seen.coins]
    assert found["noise scale"].p == noise_scale(outside, SAMPLED.noise)
    assert found["canary length"].p == canary_length(inside, outside, SAMPLED)
    assert found["fresh noise"].p == fresh_noise(outside)
    assert found["own noise"].p == own_noise(outside, {"s1": seen.known[~seen.coins]})
    assert found["sampling"].p == sampling(inside, outside, SAMPLED)


@pytest.mark.parametrize(
    ("noise", "weights", "rate"),
    [
        *((noise, (1.0,), 1.0) for noise in (0.0, -1.0, np.inf, np.nan)),
        *((1.0, weights, 1.0) for weights in ((), (0.0,), (1.0, -1.0))),
        *((1.0, (1.0,), rate) for rate in (0.0, 1.5, np.nan)),
    ],
)
def test_what_no_mechanism_can_be_is_bad_input(noise: float, weights: tuple[float, ...], rate: float) -> None:
    with pytest.raises(BadInput, match="are needed"):
        Declared(noise, weights, rate)
