from __future__ import annotations

import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.encoding.fixedpoint import FixedPoint
from securefl.errors import AccountingMismatch, BadInput
from securefl.privacy import accountant, renyi
from securefl.privacy.accountant import (
    affordable_rounds,
    calibrate,
    cross_check,
    decides,
    epsilon,
    parallel,
    surely_affordable,
)
from securefl.privacy.mechanism import DPSGD, SGD, Budget, Mechanism, NoisedSum, SampledGaussian, Skellam, Unit
from securefl.privacy.search import MOST_NOISE

MILLION = 1_000_000


def scale(noise: float) -> float:
    """What a 32-bit ring has room for: 100 updates of length 1 and the noise of all 100, of which 80 are enough."""
    return FixedPoint(MILLION, bound=1.0, clients=100, noise=noise * math.sqrt(100 / 80)).scale


SCALE = scale(1.0)


def skellam(noise: float, dimension: int = MILLION) -> Skellam:
    return Skellam("update", noise, SCALE, dimension, honest=80)


# (sampling rate, noise multiplier, steps, delta, epsilon)
TABLE = [
    (0.01, 1.0, 1000, 1e-5, 1.828),
    (0.05, 1.0, 1000, 1e-5, 10.987),
    (256 / 60000, 1.1, 14040, 1e-5, 2.380),
    (0.2, 2.0, 200, 1e-5, 7.372),
    (1.0, 5.0, 50, 1e-5, 6.573),
]


def opacus_prv_epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus takes log(0) at rate 1 on purpose
        from opacus.accountants import PRVAccountant

        prv = PRVAccountant()
        prv.history = [(noise, rate, steps)]
        return float(prv.get_epsilon(delta, eps_error=0.005))


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "expected"), TABLE)
def test_epsilon_matches_the_table(rate: float, noise: float, steps: int, delta: float, expected: float) -> None:
    assert epsilon([DPSGD(noise, rate, steps)], delta) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "expected"), TABLE)
def test_an_independent_implementation_agrees(
    rate: float, noise: float, steps: int, delta: float, expected: float
) -> None:
    ours = epsilon([DPSGD(noise, rate, steps)], delta)
    assert ours == pytest.approx(opacus_prv_epsilon(rate, noise, steps, delta), abs=0.02)


def test_the_figure_is_that_of_dp_accountings_own_accountant() -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    theirs = PLDAccountant()
    theirs.compose(PoissonSampledDpEvent(0.05, GaussianDpEvent(1.0)), 60)
    theirs.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0)), 30)
    theirs.compose(GaussianDpEvent(9.0), 2)
    ours = epsilon([DPSGD(1, 0.05, 60), DPSGD(2, 0.1, 30), DPSGD(9, 1, 2)], 1e-5)
    assert ours == pytest.approx(theirs.get_epsilon(1e-5), abs=1e-6)


def test_rounds_compose_as_the_steps_they_are_made_of() -> None:
    five = epsilon([DPSGD(1, 0.05, 20)] * 5, 1e-5)
    assert five == pytest.approx(3.50, abs=0.02)
    assert five == epsilon([DPSGD(1, 0.05, 100)], 1e-5)


def test_order_and_clip_do_not_change_epsilon() -> None:
    first, second = DPSGD(4, 0.5, 3, clip=0.1), DPSGD(3, 0.4, 2)
    assert epsilon([first, second], 1e-5) == epsilon([second, DPSGD(4, 0.5, 3, clip=9)], 1e-5)


def test_nothing_spent_is_epsilon_zero() -> None:
    assert epsilon([], 1e-5) == 0.0
    assert cross_check([], 1e-5) == 0.0


def test_gaussians_that_are_not_sampled_are_charged_as_the_one_they_compose_to() -> None:
    sums = [NoisedSum("metrics", noise, bound) for noise, bound in ((3.0, 1.0), (4.0, 7.0), (12.0, 0.1))]
    together = 1 / math.sqrt(1 / 9 + 1 / 16 + 2 / 144)
    assert epsilon([*sums, DPSGD(12, 1, 1)], 1e-5) == pytest.approx(epsilon([DPSGD(together, 1, 1)], 1e-5), abs=1e-9)
    assert epsilon(sums, 1e-5, "patient") == epsilon(sums, 1e-5, "record")


def test_what_has_no_epsilon_is_refused() -> None:
    questions: list[Callable[[], object]] = [
        lambda: epsilon([DPSGD(1, 0.05, 20), SGD(0.05, 20)], 1e-5),
        lambda: cross_check([SGD(0.05, 20)], 1e-5),
        lambda: decides([SGD(0.05, 20)], 1e-5),
        lambda: affordable_rounds([SGD(0.05, 20)], Budget(1, 1e-5)),
        lambda: affordable_rounds([DPSGD(1, 0.05, 20)], Budget(1, 1e-5), [SGD(0.05, 20)]),
        lambda: calibrate(lambda noise: [DPSGD(noise, 0.05, 20), SGD(0.05, 20)], 1, Budget(1, 1e-5)),
    ]
    for question in questions:
        with pytest.raises(BadInput, match="SGD has no epsilon"):
            question()


def test_record_level_noise_hides_no_client() -> None:
    with pytest.raises(BadInput, match="hides one record"):
        epsilon([DPSGD(1, 0.05, 20)], 1e-5, "client")


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, 1e-13])
@pytest.mark.parametrize("mechanisms", [[DPSGD(1, 0.05, 20)], [skellam(1.0)], []])
def test_a_delta_that_means_nothing_is_refused(mechanisms: list[Mechanism], delta: float) -> None:
    for question in (epsilon, cross_check):
        with pytest.raises(BadInput, match="delta is"):
            question(mechanisms, delta)


def test_the_least_delta_has_an_epsilon() -> None:
    assert 0 < epsilon([DPSGD(1, 0.01, 1000)], 1e-12) <= cross_check([DPSGD(1, 0.01, 1000)], 1e-12)


def test_reports_can_say_which_accountant_decided() -> None:
    assert decides([DPSGD(1, 0.05, 20), NoisedSum("metrics", 5, 1)], 1e-5) == "PLD"
    assert decides([DPSGD(1, 0.05, 20), skellam(1.0)], 1e-5) == "RDP"
    assert decides([], 1e-5) == "PLD"
    assert accountant.version().count(".") == 2


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("noise", [0.7, 3.0, 30.0])
@pytest.mark.parametrize("rounds", [1, 40])
def test_skellam_sums_are_charged_by_their_curve(noise: float, rounds: int, unit: Unit) -> None:
    released = [skellam(noise)] * rounds
    charged = epsilon(released, 1e-5, unit)
    assert charged == pytest.approx(cross_check(released, 1e-5, unit), rel=1e-9)
    per_client = 1 if unit == "client" else 2
    gaussian = renyi.epsilon([SampledGaussian(noise / per_client, 1.0, rounds)], 1e-5)
    assert gaussian <= charged <= gaussian * 1.001


@pytest.mark.parametrize("rounds", [1, 10, 100, 400])
@pytest.mark.parametrize("noise", [1.0, 8.0, 64.0])
def test_a_32_bit_ring_costs_a_million_parameters_less_than_a_thousandth_of_epsilon(rounds: int, noise: float) -> None:
    discrete = epsilon([Skellam("update", noise, scale(noise), MILLION, honest=80)] * rounds, 1e-5, "client")
    continuous = renyi.epsilon([SampledGaussian(noise, 1.0, rounds)], 1e-5)
    assert 0 <= discrete / continuous - 1 <= 1e-3


def test_a_few_integer_steps_of_noise_cost_visibly_more_than_a_gaussian() -> None:
    coarse = Skellam("update", 1.0, scale=40.0, dimension=1000, honest=10)
    assert epsilon([coarse], 1e-5, "client") > 1.5 * renyi.epsilon([SampledGaussian(1.0, 1.0, 1)], 1e-5)


@settings(max_examples=10, deadline=None)
@given(
    noise=st.floats(0.5, 50),
    rate=st.floats(1e-4, 1),
    steps=st.integers(1, 100_000),
    client=st.floats(0.5, 500),
    sums=st.integers(1, 500),
    dimension=st.integers(1, 10**7),
)
def test_a_mixed_ledger_has_two_opinions_that_agree(
    noise: float, rate: float, steps: int, client: float, sums: int, dimension: int
) -> None:
    mixed: list[Mechanism] = [DPSGD(noise, rate, steps), *[skellam(client, dimension)] * sums]
    together = epsilon(mixed, 1e-5)
    if math.isfinite(together):
        assert cross_check(mixed, 1e-5) == pytest.approx(together, rel=1e-6, abs=1e-6)
        assert together >= epsilon(mixed[1:], 1e-5)
        assert together == epsilon(mixed[::-1], 1e-5)


def test_clients_without_a_unit_in_common_cost_the_most_of_them_and_others_all_together() -> None:
    clients = [[DPSGD(9, 1, 20)], [DPSGD(9, 1, 60)], []]
    each = [epsilon(client, 1e-5) for client in clients]
    assert parallel(each) == each[1]
    assert parallel([]) == 0.0
    assert epsilon([one for client in clients for one in client], 1e-5) > 1.1 * each[1]


def test_negligible_noise_is_infinite_epsilon_and_takes_no_time() -> None:
    assert epsilon([DPSGD(1e-200, 0.05, 20)], 1e-5) == math.inf
    assert epsilon([skellam(1e-200)], 1e-5, "client") == math.inf
    assert affordable_rounds([skellam(1e-200), DPSGD(1e-200, 0.05, 20)], Budget(1, 1e-5)) == 0
    assert cross_check([skellam(1e-9), DPSGD(1, 0.05, 20)], 1e-5) == math.inf
    assert affordable_rounds([DPSGD(1e-3, 1, 1)], Budget(1000, 1e-5)) == 0


@pytest.mark.parametrize("mechanism", [DPSGD(0.01, 1, 10**9), DPSGD(0.1, 0.9, 50), DPSGD(0.3, 0.5, 1000)])
def test_a_hopeless_mechanism_is_bounded_without_exhausting_memory(mechanism: DPSGD) -> None:
    assert epsilon([mechanism], 1e-5) == math.inf


def test_an_epsilon_of_hundreds_is_still_bounded() -> None:
    assert epsilon([DPSGD(1.5, 0.5, 1000)], 1e-5) == pytest.approx(107.06, abs=0.01)
    # The Renyi bound is far above, and must not decide what is reported.
    published = [DPSGD(0.36, 0.02, 1500)]
    assert 40 < epsilon(published, 1e-3) < 100 < cross_check(published, 1e-3)


def test_an_epsilon_whose_exponential_overflows_is_infinite_and_no_contradiction() -> None:
    growing = [epsilon([DPSGD(1.5, 0.5, steps)], 1e-5) for steps in (8402, 9500, 20_000)]
    assert 600 < growing[0] <= growing[1] <= growing[2] == math.inf
    assert epsilon([DPSGD(1.5, 0.5, 8402), skellam(3.0)], 1e-5) == math.inf


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    rate=st.floats(0.001, 1),
    noise=st.floats(0.5, 20),
    steps=st.integers(1, 500),
    more=st.integers(1, 200),
    delta=st.sampled_from([1e-7, 1e-5, 1e-3]),
)
def test_more_steps_never_cost_less_and_renyi_never_says_less(
    rate: float, noise: float, steps: int, more: int, delta: float
) -> None:
    few, many = (epsilon([DPSGD(noise, rate, count)], delta) for count in (steps, steps + more))
    assert few <= many + 1e-9
    assert cross_check([DPSGD(noise, rate, steps)], delta) >= few - 0.02


def test_accountants_that_contradict_each_other_stop_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accountant, "_renyi_epsilon", lambda total, delta: 0.5)
    with pytest.raises(AccountingMismatch, match="release nothing"):
        epsilon([DPSGD(1, 0.0512, 123)], 1e-5)


def test_a_skellam_curve_that_two_places_do_not_share_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accountant, "_skellam_divergence", lambda one, order: order / 2.002)
    with pytest.raises(AccountingMismatch, match="should be the same: release nothing"):
        epsilon([skellam(1.0123)], 1e-5, "client")


def test_a_skellam_curve_below_the_gaussian_one_stops_the_cross_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accountant, "_skellam_divergence", lambda one, order: order / 4)
    monkeypatch.setattr(renyi, "skellam_curve", lambda l1, l2, variance: [order / 4 for order in renyi.ORDERS])
    mistaken = [skellam(1.0321)]
    assert epsilon(mistaken, 1e-5, "client") > 0
    with pytest.raises(AccountingMismatch, match="the PLD accountant says"):
        cross_check(mistaken, 1e-5, "client")


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


def test_a_budget_already_overspent_affords_no_round() -> None:
    assert affordable_rounds([DPSGD(4, 0.5, 3)], Budget(0.5, 1e-5), [DPSGD(1, 0.05, 1000)]) == 0


def test_a_search_without_end_stops_at_the_limit() -> None:
    assert affordable_rounds([DPSGD(1000, 1e-4, 1)], Budget(50, 1e-5)) == accountant.MOST_ROUNDS
    assert affordable_rounds([], Budget(50, 1e-5), [DPSGD(1000, 1e-4, 1)]) == accountant.MOST_ROUNDS


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


def test_computing_an_epsilon_loads_no_torch() -> None:
    program = (
        "import sys\n"
        "from securefl.privacy.accountant import epsilon\n"
        "from securefl.privacy.mechanism import DPSGD\n"
        "assert 'dp_accounting' not in sys.modules, 'loaded before it is needed'\n"
        "epsilon([DPSGD(4, 0.5, 3)], 1e-5)\n"
        "assert not {'torch', 'opacus'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    ("mechanism", "delta"), [(DPSGD(3.0, 0.01, 100_000), 1e-11), (DPSGD(10.0, 0.01, 1_000_000), 1e-5)]
)
def test_where_a_composed_loss_distribution_is_rounding_the_renyi_accountant_decides(
    mechanism: DPSGD, delta: float
) -> None:
    """Composed by another route, the first is 7.564 and not 7.541, as the transform gives; the second cannot hold."""
    assert decides([mechanism], delta) == "RDP"
    assert epsilon([mechanism], delta) == cross_check([mechanism], delta)
    assert decides([DPSGD(3.0, 0.01, 100_000)], 1e-8) == "PLD"


@pytest.mark.parametrize("epsilon_cap", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("mechanism", [DPSGD(1.0, 0.05, 20), DPSGD(4.0, 1.0, 1), DPSGD(1e-3, 0.5, 1)])
def test_what_is_surely_affordable_is_affordable(mechanism: DPSGD, epsilon_cap: float) -> None:
    budget, spent = Budget(epsilon_cap, 1e-5), [DPSGD(8.0, 0.1, 5)]
    sure = surely_affordable([mechanism], budget, spent)
    assert sure <= affordable_rounds([mechanism], budget, spent)
    assert epsilon([*spent, *[mechanism] * sure], 1e-5) <= epsilon_cap
