from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from securefl.errors import BadInput
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, Budget, Mechanism, NoisedSum, Unit
from securefl.privacy.planning import MOST_ROUNDS, affordable_rounds, calibrate, surely_affordable
from securefl.privacy.search import MOST_NOISE
from tests.securefl.privacy.test_accountant import skellam


@pytest.mark.parametrize(
    ("mechanism", "budget", "spent"),
    [
        (DPSGD(4, 0.5, 3), Budget(3, 1e-5), []),
        (DPSGD(4, 0.5, 3), Budget(3, 1e-5), [DPSGD(2, 0.2, 20)]),
        (DPSGD(1, 0.05, 20), Budget(3.6, 1e-5), [DPSGD(1, 0.05, 20)] * 4),
        (DPSGD(20, 0.001, 1), Budget(0.01, 1e-5), []),
        (DPSGD(50, 1, 1), Budget(0.5, 1e-6), []),
        (NoisedSum("statistics", 30, 1), Budget(4, 1e-6), [DPSGD(2, 0.2, 20), NoisedSum("metrics", 10, 1)]),
        (skellam(20.0), Budget(4, 1e-6), []),
        (skellam(20.0), Budget(4, 1e-6), [DPSGD(2, 0.2, 20)]),
        (DPSGD(4, 0.5, 3), Budget(4, 1e-6), [skellam(20.0)] * 9),
    ],
)
def test_one_round_more_than_affordable_is_too_much(
    mechanism: Mechanism, budget: Budget, spent: list[Mechanism]
) -> None:
    rounds = affordable_rounds([mechanism], budget, spent)
    assert epsilon([*spent, *[mechanism] * rounds], budget.delta) <= budget.epsilon
    assert epsilon([*spent, *[mechanism] * (rounds + 1)], budget.delta) > budget.epsilon


def test_a_round_of_several_releases_is_charged_for_all_of_them() -> None:
    both: list[Mechanism] = [DPSGD(4, 0.5, 3), NoisedSum("metrics", 12, 1)]
    budget = Budget(3, 1e-5)
    rounds = affordable_rounds(both, budget)
    assert epsilon(both * rounds, 1e-5) <= 3 < epsilon(both * (rounds + 1), 1e-5)
    assert 0 < rounds < affordable_rounds(both[:1], budget)
    # Two rounds and a further training are spent: what is left of the second kind of release is not lost.
    assert affordable_rounds(both, budget, [*both, *both, both[0]]) in (rounds - 2, rounds - 3)


def test_rounds_already_spent_come_off_the_rounds_affordable() -> None:
    budget, each = Budget(3, 1e-5), DPSGD(4, 0.5, 3)
    rounds = affordable_rounds([each], budget)
    assert [affordable_rounds([each], budget, [each] * spent) for spent in range(rounds + 3)] == [
        *range(rounds, -1, -1),
        0,
        0,
    ]


def test_a_ledger_of_500_charges_asks_in_no_time() -> None:
    each: list[Mechanism] = [DPSGD(60, 1, 3), NoisedSum("metrics", 200, 1)]
    budget = Budget(8, 1e-5)
    rounds = affordable_rounds(each, budget)
    before = time.process_time()
    left = [affordable_rounds(each, budget, each * spent) for spent in range(250)]
    assert time.process_time() - before < 1
    assert left == list(range(rounds, rounds - 250, -1))


def test_a_budget_beyond_all_figures_is_as_good_as_the_largest_of_them() -> None:
    round_costs = [DPSGD(0.5, 1.0, 1)]
    assert affordable_rounds(round_costs, Budget(1e17, 1e-5)) == affordable_rounds(round_costs, Budget(700, 1e-5)) > 0


def test_a_budget_already_overspent_affords_no_round() -> None:
    assert affordable_rounds([DPSGD(4, 0.5, 3)], Budget(0.5, 1e-5), [DPSGD(1, 0.05, 1000)]) == 0


def test_a_search_without_end_stops_at_the_limit() -> None:
    assert affordable_rounds([DPSGD(1000, 1e-4, 1)], Budget(50, 1e-5)) == MOST_ROUNDS
    assert affordable_rounds([], Budget(50, 1e-5), [DPSGD(1000, 1e-4, 1)]) == MOST_ROUNDS


def next_lower(noise: float) -> float:
    """One less in the fourth digit."""
    digits, exponent = f"{noise:.3e}".split("e")
    below = round(float(digits) * 1000) - 1
    return float(f"{below}e{int(exponent) - 3}") if below >= 1000 else float(f"9999e{int(exponent) - 4}")


@pytest.mark.parametrize(
    ("at", "rounds", "budget", "spent", "unit"),
    [
        (lambda noise: [DPSGD(noise, 0.05, 20)], 30, Budget(3, 1e-5), [], "record"),
        (lambda noise: [DPSGD(noise, 1, 5)], 30, Budget(1, 1e-5), [NoisedSum("statistics", 20, 1)], "record"),
        (lambda noise: [DPSGD(noise, 0.1, 2), NoisedSum("metrics", 40, 1)], 4, Budget(1, 1e-6), [], "patient"),
        (lambda noise: [skellam(noise)], 100, Budget(4, 1e-6), [], "client"),
        (lambda noise: [skellam(noise)], 10, Budget(4, 1e-6), [DPSGD(2, 0.2, 20)], "record"),
        (lambda noise: [DPSGD(noise, 0.05, 20)], 30, Budget(6, 1e-5), [skellam(40.0)] * 5, "record"),
    ],
)
def test_a_calibrated_noise_fits_and_the_next_lower_does_not(
    at: Callable[[float], Sequence[Mechanism]],
    rounds: int,
    budget: Budget,
    spent: list[Mechanism],
    unit: Unit,
) -> None:
    noise = calibrate(at, rounds, budget, spent, unit)
    assert noise == float(f"{noise:.4g}")
    assert epsilon([*spent, *list(at(noise)) * rounds], budget.delta, unit) <= budget.epsilon
    assert epsilon([*spent, *list(at(next_lower(noise))) * rounds], budget.delta, unit) > budget.epsilon


def test_a_table_row_calibrates_to_its_own_noise() -> None:
    assert calibrate(lambda noise: [DPSGD(noise, 256 / 60000, 2340)], 6, Budget(2.38, 1e-5)) == 1.1


def test_a_calibration_ends_at_the_most_noise() -> None:
    assert calibrate(lambda noise: [DPSGD(noise, 1, 10**6)], 1, Budget(0.41, 1e-5)) == pytest.approx(9000, rel=0.1)
    with pytest.raises(BadInput, match=f"up to {MOST_NOISE:g} keeps 9 rounds within epsilon 0.01, of which 0 is spent"):
        calibrate(lambda noise: [DPSGD(noise, 1, 10**6)], 9, Budget(0.01, 1e-5))


def test_what_is_spent_already_cannot_be_calibrated_away() -> None:
    with pytest.raises(BadInput, match=r"epsilon 10\.99 is spent already, more than the 3 of the budget"):
        calibrate(lambda noise: [DPSGD(noise, 0.05, 20)], 1, Budget(3, 1e-5), [DPSGD(1, 0.05, 1000)])
    with pytest.raises(BadInput, match="give other releases more noise"):
        calibrate(lambda noise: [DPSGD(noise, 0.05, 20), NoisedSum("metrics", 1, 1)], 1, Budget(3, 1e-5))


def test_a_calibration_for_no_rounds_is_refused() -> None:
    with pytest.raises(BadInput, match="rounds is 0"):
        calibrate(lambda noise: [DPSGD(noise, 0.05, 20)], 0, Budget(3, 1e-5))


@pytest.mark.parametrize("epsilon_cap", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("mechanism", [DPSGD(1.0, 0.05, 20), DPSGD(4.0, 1.0, 1), DPSGD(1e-3, 0.5, 1)])
def test_what_is_surely_affordable_is_affordable(mechanism: DPSGD, epsilon_cap: float) -> None:
    budget, spent = Budget(epsilon_cap, 1e-5), [DPSGD(8.0, 0.1, 5)]
    sure = surely_affordable([mechanism], budget, spent)
    assert sure <= affordable_rounds([mechanism], budget, spent)
    assert epsilon([*spent, *[mechanism] * sure], 1e-5) <= epsilon_cap
