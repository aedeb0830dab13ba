from __future__ import annotations

import math
import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import AccountingMismatch, BadInput
from securefl.privacy import accountant
from securefl.privacy.accountant import affordable_rounds, cross_check, epsilon
from securefl.privacy.mechanism import DPSGD, SGD, Budget

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


def test_plain_sgd_has_no_epsilon() -> None:
    for question in (
        lambda: epsilon([DPSGD(1, 0.05, 20), SGD(0.05, 20)], 1e-5),
        lambda: cross_check([SGD(0.05, 20)], 1e-5),
        lambda: affordable_rounds(SGD(0.05, 20), Budget(1, 1e-5)),
    ):
        with pytest.raises(BadInput, match="plain SGD has no epsilon"):
            question()


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_means_nothing_is_refused(delta: float) -> None:
    with pytest.raises(BadInput, match="delta is"):
        epsilon([DPSGD(1, 0.05, 20)], delta)


def test_negligible_noise_is_infinite_epsilon_and_takes_no_time() -> None:
    assert epsilon([DPSGD(1e-200, 0.05, 20)], 1e-5) == math.inf
    assert affordable_rounds(DPSGD(1e-3, 1, 1), Budget(1000, 1e-5)) == 0


@pytest.mark.parametrize("mechanism", [DPSGD(0.01, 1, 10**9), DPSGD(0.1, 0.9, 50), DPSGD(0.3, 0.5, 1000)])
def test_a_hopeless_mechanism_is_bounded_without_exhausting_memory(mechanism: DPSGD) -> None:
    assert epsilon([mechanism], 1e-5) > 1000


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
    monkeypatch.setattr(accountant, "_renyi_epsilon", lambda parts, delta: 0.5)
    with pytest.raises(AccountingMismatch, match="release nothing"):
        epsilon([DPSGD(1, 0.0512, 123)], 1e-5)


@pytest.mark.parametrize(
    ("mechanism", "budget", "spent"),
    [
        (DPSGD(4, 0.5, 3), Budget(3, 1e-5), []),
        (DPSGD(4, 0.5, 3), Budget(3, 1e-5), [DPSGD(2, 0.2, 20)]),
        (DPSGD(1, 0.05, 20), Budget(3.6, 1e-5), [DPSGD(1, 0.05, 20)] * 4),
        (DPSGD(20, 0.001, 1), Budget(0.01, 1e-5), []),
        (DPSGD(50, 1, 1), Budget(0.5, 1e-6), []),
    ],
)
def test_one_round_more_than_affordable_is_too_much(mechanism: DPSGD, budget: Budget, spent: list[DPSGD]) -> None:
    rounds = affordable_rounds(mechanism, budget, spent)
    assert epsilon([*spent, *[mechanism] * rounds], budget.delta) <= budget.epsilon
    assert epsilon([*spent, *[mechanism] * (rounds + 1)], budget.delta) > budget.epsilon


def test_a_budget_already_overspent_affords_no_round() -> None:
    assert affordable_rounds(DPSGD(4, 0.5, 3), Budget(0.5, 1e-5), [DPSGD(1, 0.05, 1000)]) == 0


def test_a_search_without_end_stops_at_the_limit() -> None:
    assert affordable_rounds(DPSGD(1000, 1e-4, 1), Budget(50, 1e-5)) == accountant.MOST_ROUNDS


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
